"""Sweeps that lose what they write to: the MLflow server for a minute, the disk's space, the bucket's permission."""

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import mlflow
import pytest

from bgsweep.errors import UserError
from bgsweep.sweep.events import Ended, Event, Result
from bgsweep.sweep.journal import read_journal
from bgsweep.sweep.manifest import read_manifest
from bgsweep.sweep.store import local_store
from tests.faults.sweeps import SPACE, TINY, begin, ended, events, output, refused, runs, told, wait_for
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


BUCKET = "s3://bucket/runs"


def in_bucket() -> list[Event]:
    """The journal of the sweep ``one`` as the bucket has it."""
    with contextlib.suppress(UserError), local_store(BUCKET, "one") as place:
        return read_journal(place / "sweeps" / "one")
    return []


def epochs(found: list[Event]) -> list[tuple[str, int]]:
    return [(event.id, event.epoch) for event in found if isinstance(event, Result)]


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """``bgsweep`` with words, in the bucket."""
    return subprocess.run(
        [sys.executable, "-m", "bgsweep.cli", *words, "--store", BUCKET],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("kind", ["interrupted, resumed", "ended, synced"])
def test_a_bucket_that_forbids_writing_from_some_moment_on_gets_the_journal_when_it_allows_it_again(
    kind: str, tmp_path: Path, policy: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One driver is interrupted while the journal is refused, the other comes to its end while everything is."""
    monkeypatch.setenv("BGSWEEP_CACHE", str(tmp_path / "cache"))
    resumed = kind == "interrupted, resumed"
    kept = tmp_path / "cache" / "unsent" / "one"
    trials, length = (5, 40) if resumed else (3, 8)  # the interruption must come before the last trial's end
    words = [*SEARCH, f"search.trials={trials}", f"training.epochs={length}", "register.name=tiny", "--name", "one"]
    words += ["--store", BUCKET]
    with mlflow_server(tmp_path) as (address, start, _):
        start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        process = begin(tmp_path, str(TINY), *SPACE, *words)
        try:
            if resumed:
                wait_for(lambda: len(epochs(in_bucket())) >= 2, process, tmp_path)
                policy("runs/sweeps/one/journal/*", "runs/sweeps/one/records*", "runs/sweeps/one/sweep.json")

                client = boto3.Session().client("s3", region_name="us-east-1")  # not with a key from before `policy`

                def next_trial() -> bool:
                    """True once the second trial has written a checkpoint, which the bucket takes."""
                    listed = client.list_objects_v2(Bucket="bucket", Prefix="runs/sweeps/one/tune-").get("Contents", ())
                    return any("/t01/checkpoint" in item["Key"] for item in listed)

                wait_for(next_trial, process, tmp_path)
                process.send_signal(signal.SIGINT)
                output(process, tmp_path)
                assert process.returncode == 130, told(tmp_path)
            else:
                wait_for(lambda: sum(isinstance(each, Ended) for each in in_bucket()) == trials, process, tmp_path)
                policy("*")
                found = ended(process, tmp_path)
        finally:
            process.kill()
        log = told(tmp_path)
        assert log.count("it is tried again") == 1, "tries at growing intervals, and one warning"
        assert "Traceback" not in log
        assert f"{BUCKET}/sweeps/one refuses the sweep's journal: " in log and f"It is kept in {kept}, and" in log
        assert epochs(read_journal(kept))[:length] == [("t00", epoch) for epoch in range(1, length + 1)]
        refusal = command(tmp_path, "status", "one")
        assert refusal.returncode == 2 and "ACCESS_DENIED" in refusal.stderr and kept.exists()
        policy()
        if resumed:
            found = ended(begin(tmp_path, "--resume", "one", "--store", BUCKET), tmp_path)
        else:
            synced = command(tmp_path, "sync", "one")
            assert synced.returncode == 0 and "0 epochs were missing" in synced.stdout, synced.stderr
        assert not kept.exists()
        every = [(f"t{number:02d}", epoch) for number in range(trials) for epoch in range(1, length + 1)]
        assert epochs(in_bucket()) == every
        with local_store(BUCKET, "one") as place:
            manifest = read_manifest(place / "sweeps" / "one") or {}
        assert manifest["result"]["best"]["trial"] == found["best"]["trial"]
        assert {run.info.status for run in runs(address).values()} == {"FINISHED"}
