"""The tracker against a real MLflow server that goes away and comes back."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgsweep.config import SweepConfig
from bgsweep.tracking import Tracker
from tests.servers import Server, mlflow_server

FILE = SweepConfig()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with mlflow_server(tmp_path) as found:
        yield found


@pytest.mark.slow
def test_training_goes_on_without_the_server_and_all_is_there_when_it_is_back(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    address, start, kill = server
    start()
    with Tracker(address) as tracker:
        parent = tracker.sweep_run("sweep-1", FILE)
        run = tracker.run_id(tracker.trial_run(parent, "t00", FILE.experiment))
        tracker.log_metrics(run, 1, {"loss": 1.0})
        assert tracker.flush()
        kill()
        began = time.monotonic()
        for epoch in range(2, 6):
            tracker.log_metrics(run, epoch, {"loss": 1.0})
        tracker.log_text(run, "written while the server was away", "note.txt")
        tracker.finish(run, "FINISHED")
        late = tracker.trial_run(parent, "t01", FILE.experiment)
        tracker.log_metrics(late, 1, {"loss": 2.0})
        tracker.finish(late, "FINISHED")
        assert tracker.run_id(late, wait=False) == ""
        assert time.monotonic() - began < 0.5
        start()
        assert tracker.flush(60)
        late = tracker.run_id(late)
        assert tracker.client.get_run(late).data.metrics == {"loss": 2.0}
    assert [metric.step for metric in tracker.client.get_metric_history(run, "loss")] == [1, 2, 3, 4, 5]
    assert sorted(file.path for file in tracker.client.list_artifacts(run)) == ["config.yaml", "note.txt"]
    assert [tracker.client.get_run(each).info.status for each in (parent, run, late)] == ["FINISHED"] * 3
    assert capsys.readouterr().out == ""  # MLflow would print links there, among what a --json command answers
