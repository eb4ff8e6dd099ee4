"""Records of an ended sweep that MLflow lacks are written from the journal."""

from pathlib import Path

import pytest

from bgsweep.config import load
from bgsweep.sweep.events import Ended, Result, Started
from bgsweep.sweep.journal import Journal
from bgsweep.sweep.manifest import write_manifest
from bgsweep.sweep.trial import dump
from bgsweep.sweep.trial_record import TrialRecord
from bgsweep.tracking import Tracker, tracking_uri
from tests.command import bgsweep

TINY = Path(__file__).parents[1] / "tiny.yaml"
BEGAN, ENDED = 1_700_000_000.0, 1_700_000_600.25
ELSEWHERE = {"bgsweep.host": "another-machine", "bgsweep.pid": "1", "bgsweep.born": "0"}


def test_missing_runs_and_epochs_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = load(TINY, ["space.background.remove={uniform: [0, 0.8]}"])
    with Tracker(tracking_uri(tmp_path), config.name) as tracker:
        parent = tracker.sweep_run("one", config)
        known = tracker.trial_run(
            parent, "t00", config.experiment.with_values({"background.remove": 0.1}), at=1000 * int(BEGAN)
        )
        tracker.log_metrics(known, 1, {"loss": 1.0})
        tracker.finish(known, "KILLED")
    folder = tmp_path / "sweeps" / "one"
    manifest = {"file": dump(config), "digest": "d", "parent": parent, "owner": ELSEWHERE, "result": {"model": 1}}
    write_manifest(folder, manifest)
    journal = Journal(folder)
    for number in range(2):
        record = TrialRecord(f"t{number:02d}", {"background.remove": 0.1}, None, "d", "")
        journal.write(Started(time=BEGAN, trial=record.copy()))
        for epoch in (1, 2, 3):
            values = {"loss": 1.0 / epoch}
            event = Result(id=record.id, epoch=epoch, metrics=values, seconds=1.0, history=[{"epoch": epoch, **values}])
            event.apply(record)
            journal.write(event)
        record.status = "completed"
        journal.write(Ended(time=ENDED, trial=record))
    done = bgsweep("sync", "one", "--store", tmp_path, folder=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("one: 5 epochs were missing at sqlite:"), done.stderr
    again = bgsweep("sync", "one", "--store", tmp_path, folder=tmp_path)
    assert again.stdout.startswith("one: 0 epochs were missing"), again.stderr
    runs = {run.info.run_name: run for run in tracker.client.search_runs([tracker.experiment_id])}
    assert sorted(runs) == ["one", "t00", "t01"]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for name in ("t00", "t01"):
        history = tracker.client.get_metric_history(runs[name].info.run_id, "loss")
        assert [point.step for point in history] == [1, 2, 3]
        times = runs[name].info.start_time, runs[name].info.end_time
        assert times == (1000 * BEGAN, 1000 * ENDED), "as the journal has it, not of the time of the sync"
