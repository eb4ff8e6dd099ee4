"""The report page of a sweep, as far as it comes from MLflow."""

from pathlib import Path

import pytest

from bgsweep.config import SweepConfig
from bgsweep.sweep.report import _from_mlflow
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
