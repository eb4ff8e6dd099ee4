"""Sweeps that lose what they write to: the MLflow server for a minute, the space on the disk."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from tests.faults.sweeps import SPACE, TINY, begin, ended, events, refused, runs, told, wait_for
from tests.servers import mlflow_server

SEARCH = ["search.trials=4", "search.scheduler=none", "search.concurrent=1", "name=tiny"]


def test_an_mlflow_server_that_is_away_for_a_minute_stops_nothing_and_misses_nothing(tmp_path: Path) -> None:
    with mlflow_server(tmp_path) as (address, start, kill):
        start()
        process = begin(tmp_path, str(TINY), *SPACE, *SEARCH, "training.epochs=30", MLFLOW_TRACKING_URI=address)
        try:
            wait_for(lambda: len(events(tmp_path, "result")) >= 2, process, tmp_path)
            kill()
            away = time.monotonic()
            wait_for(
                lambda: any(event["id"] == "t01" for event in events(tmp_path, "result")), process, tmp_path
            )  # a trial has begun, trained and told of it
            time.sleep(max(0, away + 60 - time.monotonic()))
            assert process.poll() is None, told(tmp_path)
            start()
            found = ended(process, tmp_path)
        finally:
            process.kill()
        recorded = runs(address)
        assert sorted(recorded) == sorted(["t00", "t01", "t02", "t03", found["sweep"]])
        assert {run.info.status for run in recorded.values()} == {"FINISHED"}
        client = mlflow.MlflowClient(tracking_uri=address)
        for trial in found["trials"]:
            assert trial["run_id"] == recorded[trial["id"]].info.run_id
            history = client.get_metric_history(trial["run_id"], "loss")
            assert sorted(point.step for point in history) == list(range(1, 31)), trial["id"]
    assert told(tmp_path).count("is unreachable; writes are retried") == 1
    assert found["model"]["alias"] == "champion"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_ends_the_sweep_clearly_and_with_room_it_goes_on(small_disk: Path) -> None:
    process = begin(small_disk, str(TINY), *SPACE, *SEARCH, "training.epochs=40")
    try:
        wait_for(lambda: len(events(small_disk, "result")) >= 2, process, small_disk)
        free = shutil.disk_usage(small_disk).free
        (small_disk / "filler").write_bytes(bytes(free - 50 * 2**20))
        last = refused(process, small_disk)
    finally:
        process.kill()
    (name,) = [folder.name for folder in (small_disk / "bgsweep_runs/sweeps").iterdir()]
    assert " MiB are free, too little to go on; free some space, then resume with" in last
    assert last.endswith(f"`bgsweep sweep --resume {name} --store {small_disk}/bgsweep_runs`")
    assert "Traceback" not in told(small_disk)
    uri = f"sqlite:///{small_disk}/bgsweep_runs/mlflow.db"
    assert {run.info.status for run in runs(uri).values()} == {"FAILED"}
    (small_disk / "filler").unlink()
    found = ended(begin(small_disk, "--resume", name), small_disk)
    assert [trial["epochs"] for trial in found["trials"]] == [40] * 4
    assert {run.info.status for run in runs(uri).values()} == {"FINISHED"}
