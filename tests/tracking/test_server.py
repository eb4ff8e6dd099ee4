"""The tracker against a real MLflow server that goes away and comes back."""

import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bgsweep.config import SweepConfig
from bgsweep.tracking import Tracker
from bgsweep.tracking.registry import add_version, promote
from tests.progress import wait_for
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


@pytest.mark.slow
def test_a_webhook_is_called_when_the_champion_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/mlflow.md says."""
    calls: list[dict[str, Any]] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            calls.append({"signed": "X-MLflow-Signature" in self.headers, **json.loads(body)})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https")
    with http.server.HTTPServer(("127.0.0.1", 0), Receiver) as receiver, mlflow_server(tmp_path) as (address, start, _):
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        start()
        with Tracker(address) as tracker:
            tracker.client.create_webhook(
                name="champion",
                url=f"http://127.0.0.1:{receiver.server_port}/hook",
                events=["model_version_alias.created"],
                secret="shared",
            )
            run = tracker.pretrain_run("one", FILE)
            model = tracker.client.create_logged_model(tracker.experiment_id, "encoder", source_run_id=run).model_id
            add_version(tracker, run, model, "tiny", {})
        promote(address, "tiny", "1", "champion")
        (call,) = wait_for(lambda: calls, lambda: None, "no call")
        receiver.shutdown()
    assert (call["entity"], call["action"], call["signed"]) == ("model_version_alias", "created", True)
    assert call["data"] == {"name": "tiny", "alias": "champion", "version": "1"}
