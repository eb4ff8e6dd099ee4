"""Records of an ended sweep that MLflow lacks are written from the journal."""

from pathlib import Path

import pytest

from bgsweep.config import load
from bgsweep.sweep import sync as syncing
from bgsweep.sweep.callbacks import SweepCallback
from bgsweep.sweep.events import Ended, Event, Result, Started
from bgsweep.sweep.heartbeat import alive
from bgsweep.sweep.journal import Journal
from bgsweep.sweep.manifest import read_manifest, write_manifest
from bgsweep.sweep.ownership import Ownership, SweepTaken, last_token
from bgsweep.sweep.trial import dump
from bgsweep.sweep.trial_record import TrialRecord
from bgsweep.tracking import Tracker, tracking_uri
from bgsweep.tracking.tracker import Status
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


def interrupted(store: Path, status: Status) -> tuple[Tracker, str]:
    """A sweep without a result whose trial has reported an epoch that MLflow lacks; its tracker and run."""
    config = load(TINY, ["space.background.remove={uniform: [0, 0.8]}"])
    with Tracker(tracking_uri(store), config.name) as tracker:
        parent = tracker.sweep_run("one", config)
        tracker.finish(parent, status)
    folder = store / "sweeps" / "one"
    write_manifest(folder, {"file": dump(config), "digest": "d", "parent": parent, "owner": ELSEWHERE})
    journal, record = Journal(folder), TrialRecord("t00", {"background.remove": 0.1}, None, "d", "")
    journal.write(Started(trial=record))
    journal.write(Result(id="t00", epoch=1, metrics={}, seconds=1.0, history=[{"epoch": 1, "loss": 1.0}]))
    return tracker, parent


def statuses(tracker: Tracker) -> dict[str, str]:
    return {run.info.run_name: run.info.status for run in tracker.client.search_runs([tracker.experiment_id])}


@pytest.mark.parametrize("status", ["KILLED", "FAILED"])
def test_the_run_of_a_sweep_that_has_no_result_does_not_look_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: Status
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker, _ = interrupted(tmp_path, status)
    assert syncing.sync("one", tmp_path)["epochs"] == 1
    assert statuses(tracker) == {"one": status, "t00": "KILLED"}


def test_nobody_is_let_in_meanwhile_and_the_runs_of_one_who_came_are_not_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the process was suspended for so long that its heartbeat was taken for that of a dead one."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker, parent = interrupted(tmp_path, "KILLED")
    folder = tmp_path / "sweeps" / "one"
    catch_up = SweepCallback.catch_up

    def taken_over(monitor: SweepCallback, past: list[Event]) -> int:
        epochs = catch_up(monitor, past)
        assert alive(folder, read_manifest(folder) or {}), "a driver that resumes it is refused"
        Ownership.claim(folder, tmp_path, last_token(folder))
        tracker.client.update_run(parent, status="RUNNING")
        return epochs

    monkeypatch.setattr(SweepCallback, "catch_up", taken_over)
    with pytest.raises(SweepTaken, match="has taken this sweep over"):
        syncing.sync("one", tmp_path)
    assert statuses(tracker) == {"one": "RUNNING", "t00": "RUNNING"}
