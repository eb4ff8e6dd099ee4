"""The report page of a sweep, as far as it comes from MLflow."""

from pathlib import Path

import pytest

from bgsweep.config import SweepConfig, resolve
from bgsweep.sweep.events import Ended, Event, Result, Started
from bgsweep.sweep.report import _from_mlflow, front_course
from bgsweep.sweep.trial_record import TrialRecord
from bgsweep.tracking import Tracker, tracking_uri


def test_all_datasets_of_a_run_are_read_in_the_order_of_their_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with Tracker(tracking_uri(tmp_path)) as tracker:
        run = tracker.pretrain_run("one", SweepConfig())
        contexts = ("test", "validation", "knn_bank", "train")
        for number, context in enumerate(contexts):
            tracker.log_dataset(run, context, f"set {number}", {"images": f"{number}"}, 10 * number)
        tags, found = _from_mlflow(tracker, run)
    assert tags["bgsweep.kind"] == "pretrain"
    assert [(each["context"], each["count"]) for each in found] == [
        ("train", 30),
        ("knn_bank", 20),
        ("validation", 10),
        ("test", 0),
    ]


def test_the_front_grows_over_the_epochs_of_all_trials() -> None:
    file = resolve({"search": {"metric": ["knn_top1", "bg_gap"]}})
    events: list[Event] = []
    for name, accuracy, gap in (("t00", 0.2, 0.3), ("t01", 0.4, 0.1), ("t02", 0.3, 0.2), ("t03", 0.5, 0.3)):
        own = TrialRecord(name, {}, None, "", "", "running")
        values = {"knn_top1": accuracy, "bg_gap": gap}
        ended = TrialRecord(name, {}, None, "", "", "completed", 4, values)
        events += [Started(trial=own), Result(id=name, epoch=4, metrics=values, seconds=1.0), Ended(trial=ended)]
    # In the box from (0.2, -0.3) to (0.5, -0.1): t01 dominates two thirds, t03 lies on its lower edge.
    assert front_course(events, file) == [(4, 0), *((each, pytest.approx(2 / 3)) for each in (8, 12, 16))]
    assert front_course(events, resolve({})) == []
