"""Trials as a table, on the command line, as files and in pandas."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import bgsweep as package
from bgsweep.cli import runs as commands
from bgsweep.errors import UserError
from bgsweep.sweep import control
from bgsweep.sweep.events import Ended, Result, Started
from bgsweep.sweep.journal import Journal
from bgsweep.sweep.manifest import write_manifest
from bgsweep.sweep.trial_record import TrialRecord
from tests.command import bgsweep

ELSEWHERE = {"bgsweep.host": "another-machine", "bgsweep.pid": "1", "bgsweep.born": "0"}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A sweep of two trials, whose searched values are of several kinds."""
    folder = tmp_path / "sweeps" / "one"
    write_manifest(folder, {"file": {}, "digest": "d", "parent": "p", "owner": ELSEWHERE, "result": {"model": 1}})
    journal = Journal(folder)
    params = ({"background.fill": "mean", "views.scale": [0.2, 1.0]}, {"background.fill": 3, "optimizer.lr": 0.1})
    for number, values in enumerate(params):
        record = TrialRecord(f"t{number:02d}", values, "baseline" if number == 0 else None, "d", "run")
        journal.write(Started(trial=record.copy()))
        for epoch in (1, 2):
            metrics = {"loss": 1.0 / epoch, "knn_top1": 0.1 * epoch, "knn_top1_se": 0.01}
            event = Result(
                id=record.id, epoch=epoch, metrics=metrics, seconds=1.0, history=[{"epoch": epoch, **metrics}]
            )
            event.apply(record)
            journal.write(event)
        record.status = "completed" if number else "stopped"
        journal.write(Ended(trial=record))
    return tmp_path


def test_a_data_frame_has_a_row_for_each_trial_or_epoch(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = package.runs("one", store)
    assert list(found["trial"]) == ["t00", "t01"] and list(found["status"]) == ["stopped", "completed"]
    assert found["params.optimizer.lr"].isna().tolist() == [True, False]
    assert found["params.background.fill"].tolist() == ["mean", "3"]
    assert found["params.views.scale"][0] == "[0.2, 1.0]"
    assert found["metrics.validation/knn/top1"].tolist() == [0.2, 0.2] and "metrics.knn_top1" not in found
    assert "metrics.validation/knn/top1_se" in found and "metrics.knn_top1_se" not in found
    monkeypatch.setenv("BGSWEEP_STORE", str(store))
    curves = package.runs("one", epochs=True)
    assert curves[["trial", "epoch"]].values.tolist() == [["t00", 1], ["t00", 2], ["t01", 1], ["t01", 2]]
    assert curves["metrics.loss"].tolist() == [1.0, 0.5, 1.0, 0.5]
    with pytest.raises(UserError, match="no sweep two; there are: one"):
        package.runs("two", store)


def test_files_hold_the_same(store: Path, tmp_path: Path) -> None:
    done = bgsweep("runs", "one", "--csv", "a.csv", "--parquet", "a.parquet", "--store", store, folder=tmp_path)
    assert done.stdout == "wrote a.csv and a.parquet: 2 rows\n", done.stderr
    whole = package.runs("one", store).fillna(float("nan"))
    for found in (pd.read_csv(tmp_path / "a.csv"), pd.read_parquet(tmp_path / "a.parquet").fillna(float("nan"))):
        pd.testing.assert_frame_equal(found, whole, check_dtype=False)
    shown = bgsweep("runs", "one", "--store", store, folder=tmp_path).stdout.splitlines()
    assert shown[0].split()[:3] == ["trial", "status", "fixed"] and shown[1].split()[0] == "t00"
    told = json.loads(bgsweep("runs", "one", "--json", "--epochs", "--store", store, folder=tmp_path).stdout)
    assert len(told["rows"]) == 4
    for option in ("--csv", "--parquet"):
        refused = bgsweep("runs", "one", option, "no/such/file", "--store", store, folder=tmp_path)
        assert refused.returncode == 2 and "no/such/file: cannot be written" in refused.stderr


def test_importing_the_package_does_not_wait_for_pandas() -> None:
    look = (
        "import sys, bgsweep; print(*set(sys.modules) & {'pandas', 'numpy', 'yaml', 'pydantic'}); "
        "bgsweep.runs; print(*set(sys.modules) & {'pandas', 'torch', 'ray'})"
    )
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_status_is_watched_until_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = ["running", "running", "running", "ended"]

    def status(name: str | None, store: object) -> dict[str, object]:
        left = states.pop(0)
        trials = [{"id": "t00", "status": "completed", "epochs": 4 - len(states), "params": {}, "metrics": {}}]
        trials[0] |= {"failures": 0, "fixed": None}
        return {"sweeps": [{"sweep": "one", "state": left, "began": 0.0, "trials": trials if len(states) < 3 else []}]}

    monkeypatch.setattr(control, "status", status)
    monkeypatch.setattr(commands.time, "sleep", lambda seconds: None)
    done = bgsweep("status", "--watch", "0.5", "--store", tmp_path, folder=tmp_path)
    assert done.stderr.count("running") == 3 and "no trial yet" in done.stderr
    assert "ended" in done.stdout and "running" not in done.stdout and not states

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    states[:] = ["running"]
    monkeypatch.setattr(commands.time, "sleep", interrupted)
    done = bgsweep("status", "--watch", "--json", "--store", tmp_path, folder=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["sweeps"][0]["state"] == "running"
