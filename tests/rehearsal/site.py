"""A whole installation on one machine: Ray nodes that know one token, an MLflow server with passwords, an S3 store."""

import configparser
import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.progress import files_in, output_of, wait_for

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

_SITE, _NODE = "BGSWEEP_TEST_SITE", "BGSWEEP_TEST_NODE"


class Site:
    """Starts each part by itself; every process carries a mark in its environment, by which it is found and ended.

    `secret` is the MLflow password and the S3 key at once: what must be found nowhere.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bgsweep-", dir="/tmp"))  # Ray's sockets need short names
        self.mark = uuid.uuid4().hex
        self.secret = f"planted-{secrets.token_hex(8)}"
        self.token = self.folder / "token"
        self.token.write_text(secrets.token_hex(32))
        self.token.chmod(0o600)
        self.store = self.folder / "store"
        self.gcs, self.dashboard, self.mlflow_port, self.s3_port = (free_port() for _ in range(4))
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("RAY_", "MLFLOW_", "AWS_", "BGSWEEP_", "PYTEST_"))
        }
        self.environment |= {
            _SITE: self.mark,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "5",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}"

    @property
    def laptop(self) -> dict[str, str]:
        """The environment of somebody outside the cluster: the token, and what the sweep needs to know."""
        return self.environment | {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.mlflow_port}",
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": self.secret,
            "AWS_ACCESS_KEY_ID": "rehearsal",
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.s3_port}",
        }

    def start_head(self, cpus: int) -> None:
        self._ray("head", "--head", f"--port={self.gcs}", f"--dashboard-port={self.dashboard}", cpus=cpus)
        self.wait_for(lambda: _answers(f"{self.address}/api/version", self.token.read_text()), "Ray's head")

    def start_node(self, name: str, cpus: int) -> None:
        """One after another: of two that start on one machine at the same time, one fails now and then."""
        before = self.alive_nodes()
        self._ray(name, f"--address=127.0.0.1:{self.gcs}", cpus=cpus)
        self.wait_for(lambda: self.alive_nodes() - before, f"Ray's node {name}")

    def kill_node(self, name: str) -> None:
        """As if the machine were gone: every process of the node, at once."""
        for process in self.processes(_NODE, name):
            with contextlib.suppress(psutil.Error):
                process.kill()

    def start_mlflow(self) -> None:
        place = self.folder / "mlflow"
        place.mkdir()
        settings = configparser.ConfigParser()
        settings["mlflow"] = {
            "default_permission": "READ",
            "database_uri": f"sqlite:///{place}/users.db",
            "admin_username": "admin",
            "admin_password": self.secret,
            "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
        }
        with (place / "auth.ini").open("w") as file:
            settings.write(file)
        arguments = ["--app-name", "basic-auth", "--host", "127.0.0.1", "--port", str(self.mlflow_port), "--workers=1"]
        arguments += ["--backend-store-uri", f"sqlite:///{place}/runs.db", "--artifacts-destination", f"{place}/files"]
        more = {
            "MLFLOW_AUTH_CONFIG_PATH": str(place / "auth.ini"),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        self._start("mlflow", [sys.executable, "-m", "mlflow", "server", *arguments], more)

    def start_s3(self) -> None:
        self._start("s3", [str(BIN / "moto_server"), "-H", "127.0.0.1", "-p", str(self.s3_port)], {})

    def wait_for_servers(self) -> None:
        self.wait_for(lambda: _answers(f"http://127.0.0.1:{self.mlflow_port}/health"), "the MLflow server")
        self.wait_for(lambda: _answers(f"http://127.0.0.1:{self.s3_port}/moto-api/"), "the S3 store")

    def alive_nodes(self) -> set[str]:
        """Ray's names of the nodes; a killed one is among them until Ray has noticed."""
        nodes = json.loads(self.get("/nodes?view=summary"))["data"]["summary"]
        return {node["raylet"]["nodeId"] for node in nodes if node["raylet"].get("state") == "ALIVE"}

    def get(self, path: str) -> str:
        """The answer of Ray's dashboard."""
        request = urllib.request.Request(
            self.address + path, headers={"Authorization": f"Bearer {self.token.read_text()}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(answer.read().decode())

    def command(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run ``bgsweep …`` on the laptop."""
        return self.run([sys.executable, "-m", "bgsweep.cli", *arguments], self.laptop | environment)

    def shell(self, line: str) -> "subprocess.CompletedProcess[str]":
        """Run a line on the laptop as it was printed."""
        return self.run(["sh", "-c", line], self.laptop)

    def run(self, command: list[str], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
        """Run a command in the site's folder to its end, as long as there is progress."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, env=environment, cwd=self.folder, stdout=pipe, stderr=pipe, text=True)
        out, err = output_of(process, self.progress)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def progress(self) -> object:
        """The output of the site's programs; not the logs of Ray's own daemons, which never end."""
        logs = [*self.folder.glob("*/session_*/logs/job-driver-*"), *self.folder.glob("*/session_*/logs/worker-*")]
        parts = [self.store, self.folder / "plain", self.folder / "mlflow", *self.folder.glob("*.log"), *logs]
        return len(self.processes()), files_in(*parts)

    def wait_for(self, happened: Callable[[], object], what: str) -> None:
        """Wait until something has happened, as long as there is progress."""

        def surely() -> object:
            with contextlib.suppress(OSError, KeyError, ValueError):  # a server that is not up yet
                return happened()
            return None

        wait_for(surely, self.progress, f"waited in vain for {what}", every=0.3)

    def json(self, *arguments: str) -> dict[str, Any]:
        done = self.command(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def processes(self, key: str = _SITE, value: str | None = None) -> list[psutil.Process]:
        """All processes that carry the site's mark (or a node's), this one excepted."""
        wanted, found = value or self.mark, []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                carried = process.environ()
                if carried.get(_SITE) == self.mark and carried.get(key) == wanted and process.pid != os.getpid():
                    found.append(process)
        return found

    def stop(self) -> list[psutil.Process]:
        """End everything as an operator would, the head after the other nodes, and say what has outlived that."""
        for name in sorted(self._started, key=lambda name: name == "head"):
            self._started[name].terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._started[name].wait(120)
        gone, left = psutil.wait_procs(self.processes(), timeout=30)
        while gone and left:  # as long as some still end
            gone, left = psutil.wait_procs(left, timeout=30)
        return left

    def remove(self) -> None:
        """Whatever is left, by force."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _ray(self, name: str, *arguments: str, cpus: int) -> None:
        ports = [f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}"]
        ports = ports if name == "head" else ports[:1]
        # A folder each: a node that unpacks a job's package deletes what lies at that place, be it another node's.
        where = [f"--temp-dir={self.folder}/{name}"]
        command = [str(BIN / "ray"), "start", "--block", f"--num-cpus={cpus}", "--object-store-memory=100000000"]
        self._start(name, [*command, *ports, *where, *arguments], {_NODE: name})

    def _start(self, name: str, command: list[str], more: dict[str, str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._started[name] = subprocess.Popen(
                command,
                env=self.environment | more,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                start_new_session=True,
            )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str, token: str = "") -> bool:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10):
        return True
