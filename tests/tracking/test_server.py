"""The tracker against a real MLflow server that goes away and comes back."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bgsweep.config import SweepFile
from bgsweep.tracking import Tracker

FILE = SweepFile()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
    """Address of a server on the loopback interface, and how to start and kill it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running: list[subprocess.Popen[bytes]] = []
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/s.db", "--artifacts-destination", f"{tmp_path}/files"]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}

    def start() -> None:
        with (tmp_path / "server.log").open("ab") as log:
            running.append(
                subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=tmp_path)
            )
        deadline = time.monotonic() + 90
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert time.monotonic() < deadline, (tmp_path / "server.log").read_text()
            time.sleep(0.2)

    def kill() -> None:
        os.killpg(running[-1].pid, signal.SIGKILL)
        running.pop().wait()

    yield f"http://127.0.0.1:{port}", start, kill
    while running:
        kill()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except (urllib.error.URLError, OSError):
        return False


@pytest.mark.slow
def test_training_goes_on_without_the_server_and_all_is_there_when_it_is_back(
    server: tuple[str, Callable[[], None], Callable[[], None]], capsys: pytest.CaptureFixture[str]
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
