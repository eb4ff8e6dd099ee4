"""Servers on the loopback interface: MLflow's, which can be killed and started again, and a hub of models."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


def ray_metrics() -> str:
    """All metrics of Ray's only node, as Prometheus reads them."""
    import ray

    (node,) = ray.nodes()
    with urllib.request.urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


@contextlib.contextmanager
def model_hub(files: Mapping[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """A server that answers as Hugging Face's hub does when ``REPOSITORY/resolve/main/FILE`` is downloaded.

    Args:
        files: content by ``REPOSITORY/FILE``.

    Yields:
        Its address, and the files that were downloaded so far.
    """
    downloads: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            content = self._answer()
            downloads.append(self._name())
            self.wfile.write(content)

        def _name(self) -> str:
            return self.path.partition("?")[0].removeprefix("/").replace("resolve/main/", "")

        def _answer(self) -> bytes:
            content = files.get(self._name())
            self.send_response(404 if content is None else 200)
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(content or b"")))
            if content is None:
                self.send_header("X-Error-Code", "EntryNotFound")
            else:
                self.send_header("ETag", '"1"')
            self.end_headers()
            return content or b""

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", downloads
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except (urllib.error.URLError, OSError):
        return False
