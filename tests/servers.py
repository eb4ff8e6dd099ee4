"""A real MLflow server on the loopback interface, which can be killed and started again on the same store."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.progress import files_in, wait_for

Server = tuple[str, Callable[[], None], Callable[[], None]]
"""Its address, and how to start and kill it."""


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running: list[subprocess.Popen[bytes]] = []
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/s.db", "--artifacts-destination", f"{folder}/files"]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}

    def start() -> None:
        with (folder / "server.log").open("ab") as log:
            running.append(
                subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=folder)
            )
        wait_for(
            lambda: _answers(f"http://127.0.0.1:{port}/health"),
            lambda: files_in(folder),
            lambda: (folder / "server.log").read_text(),
            running[-1],
        )

    def kill() -> None:
        os.killpg(running[-1].pid, signal.SIGKILL)
        running.pop().wait()

    try:
        yield f"http://127.0.0.1:{port}", start, kill
    finally:
        while running:
            kill()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except (urllib.error.URLError, OSError):
        return False
