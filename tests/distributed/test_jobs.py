"""`bgsweep submit` refuses mistakes before anything is sent; the rest needs a cluster: tests/rehearsal."""

import asyncio
import json
import os
import re
import shlex
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import ServerDisconnectedError
from ray.job_submission import JobStatus

from bgsweep.cli.main import main, parse
from bgsweep.cli.runs import Status, Stop
from bgsweep.cli.train import Submit
from bgsweep.distributed import credentials, jobs, patience
from bgsweep.errors import UserError
from tests.rehearsal.site import Site

TINY = str(Path(__file__).parents[1] / "tiny.yaml")
SPACE = "space.optimizer.lr={loguniform: [0.01, 0.1]}"


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """Address of something that is no Ray, and the requests that came to it."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}", seen
        found.shutdown()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.yaml"], "nowhere.yaml: No such file or directory"),
        ([TINY, "background.remov=0.3"], "background.remov: unknown key; did you mean `remove`?"),
        (
            [TINY, "data.images=images", "data.masks=masks"],
            "data.images=images is relative to a folder of this machine",
        ),
        (
            [TINY, "data={images: /all/a.csv, masks: included, columns: {root: photos}}"],
            "data.columns.root=photos is relative to a folder of this machine",
        ),
        ([TINY, "data.pack=packs/mine"], "data.pack=packs/mine is relative to a folder of this machine"),
        ([TINY, "encoder.weights=README.md"], "encoder.weights=README.md is relative to a folder of this machine"),
        ([TINY, "--store", "runs"], "--store=runs is relative to a folder of this machine"),
        ([TINY, "--env", "NO_SUCH_VARIABLE"], "--env NO_SUCH_VARIABLE: the variable is not set; export it first"),
    ],
)
def test_mistakes_are_told_before_anything_is_submitted(
    arguments: list[str], message: str, server: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    address, seen = server
    assert main(["submit", *arguments, "--address", address, SPACE]) == 2
    assert message in capsys.readouterr().err
    assert seen == []


def test_an_address_that_is_no_cluster_is_one_line(
    server: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    address, _ = server
    for place, message in ((address, f"Ray at {address}: "), ("ray-head:8265", "--address ray-head:8265: name")):
        assert main(["submit", TINY, "--address", place, SPACE]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith(f"error: {message}") and "Traceback" not in error


def test_the_lines_that_submit_prints_are_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are run by tests/rehearsal; here they are read as the shell and each program read them."""
    from ray.dashboard.modules.job.cli import logs

    name, address = "tiny-20261127T101010Z-ab12", "http://head:8265"
    printed = Submit().show({"sweep": name, "address": address, "passed_on": ["AWS_REGION"]})
    lines = {label: shlex.split(words) for label, words in re.findall(r"^(\S+) +(.+)$", printed, re.MULTILINE)}
    assert lines.keys() == {"submitted", "passed", "status", "log", "stop"}
    for label, command in (("status", Status), ("stop", Stop)):
        program, *words = lines[label]
        options = parse(words)
        assert program == "bgsweep" and isinstance(options.command, command)
        assert (options.name, options.address, options.store) == (name, address, None)
    assert lines["log"][:3] == ["ray", "job", "logs"]
    read = logs.make_context("logs", lines["log"][3:]).params
    assert (read["job_id"], read["address"], read["follow"]) == (name, address, True)

    asked: dict[str, Any] = {}
    monkeypatch.setattr(jobs, "_Jobs", lambda at: _Cluster(at, asked))
    follow = jobs.stop(name, "/data/my runs", address)["follow"]
    options = parse(shlex.split(follow)[1:])
    assert (options.name, options.address, str(options.store)) == (name, address, "/data/my runs")
    assert asked == {"words": ["stop", name], "store": "/data/my runs"}


def test_uploaded_code_has_its_own_commit_and_not_that_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []

    class Client:
        def __init__(self, address: str) -> None:
            pass

        def submit_job(self, **job: Any) -> str:
            sent.append(job["runtime_env"])
            return "job"

    def git(*words: str) -> str:
        names = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(["git", *names, *words], cwd=checkout, check=True, capture_output=True, text=True).stdout

    def commit(code: bool) -> str | None:
        begun = jobs._Jobs("http://head:8265").begin(["sweep"], None, code, {}, tmp_path, {})
        assert begun == "job"
        return sent[-1].get("env_vars", {}).get("BGSWEEP_GIT_COMMIT")

    checkout = tmp_path / "checkout"
    checkout.mkdir()
    file = checkout / "provenance.py"
    file.write_text("")
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", Client)
    monkeypatch.setattr(sys.modules["bgsweep.tracking.provenance"], "__file__", str(file))
    monkeypatch.delenv("BGSWEEP_GIT_COMMIT", raising=False)
    assert commit(code=True) == "unknown", "no checkout"
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "one")
    head = git("rev-parse", "HEAD").strip()
    assert (commit(code=True), commit(code=False)) == (head, None)
    file.write_text("changed")
    assert commit(code=True) == f"{head}-dirty"


def gone() -> Exception:
    return ConnectionError("Failed to connect to Ray at address: http://head:8265")


LOG = ["line 0\nline 1\n", "line 2\n", "line 3\n", '{"trials": 1}\n']
RUNNING, SUCCEEDED = JobStatus.RUNNING, JobStatus.SUCCEEDED
HANGS = None


class _Unreliable:
    """A client of Ray's jobs: what it gives for each status, and where each connection to the log breaks, and how."""

    def __init__(self, statuses: Sequence[JobStatus | Exception], tails: list[tuple[int, Exception | None]]) -> None:
        self._statuses, self._tails = iter(statuses), iter(tails)
        self._answers: Iterator[JobStatus | Exception] = iter((gone(), SUCCEEDED))

    def get_job_status(self, name: str) -> JobStatus:
        return self._give(next(self._statuses))

    def get_job_info(self, name: str) -> Any:
        return SimpleNamespace(status=self._give(next(self._answers)))

    def get_job_logs(self, name: str) -> str:
        return "".join(LOG)

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        chunks, error = next(self._tails)
        for text in LOG[:chunks]:
            yield text
        if error is HANGS:
            await asyncio.sleep(60)
        else:
            raise error

    @staticmethod
    def _give(found: JobStatus | Exception) -> JobStatus:
        if isinstance(found, Exception):
            raise found
        return found


def following(client: _Unreliable, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", lambda address: client)
    monkeypatch.setattr(jobs, "_POLL", 0.0)
    monkeypatch.setattr(jobs, "_TAIL", 0.2)
    monkeypatch.setattr(patience, "_PAUSE", 0.0)
    return jobs._submitted(jobs._Jobs("http://head:8265"), "tiny", "tiny", {}, wait=True)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("WebSocket connection closed unexpectedly with close code 1006"),
        ServerDisconnectedError(),
        gone(),
        HANGS,
    ],
)
def test_a_log_is_followed_over_broken_connections_with_each_line_once(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = RuntimeError("Request failed with status code 503: gateway")
    statuses: list[JobStatus | Exception] = [RUNNING, gone(), gateway, RUNNING, SUCCEEDED]
    found = following(_Unreliable(statuses, [(2, error), (3, error)]), monkeypatch)
    assert found["result"] == {"trials": 1}
    lost = (
        "the connection to Ray at http://head:8265 is lost; what was submitted goes on there; this command tries again"
    )
    told = capsys.readouterr().err.splitlines()[1:]
    assert [line for line in told if not line.startswith(lost)] == ["line 0", "line 1", "line 2", "line 3"]
    assert len(told) == 4 + 2, "a line for the status, and one for the result"


def test_a_connection_that_stays_lost_and_other_errors_end_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_MINUTES", 0.0)
    with pytest.raises(UserError, match=r"^Ray at http://head:8265: Failed to connect .*; check --address"):
        following(_Unreliable([RUNNING, *[gone()] * 9], [(1, gone())]), monkeypatch)
    refused = RuntimeError("Request failed with status code 404: Job tiny does not exist")
    with pytest.raises(UserError, match="does not exist"):
        following(_Unreliable([RUNNING, refused], [(1, gone())]), monkeypatch)


class _Cluster:
    """Stands for a cluster on which a sweep runs that another command started."""

    def __init__(self, address: str, asked: dict[str, Any]) -> None:
        self.address, self._asked = address, asked

    def sweeps(self) -> dict[str, Any]:
        return {}

    def ask(self, words: list[str], store: str | None, begun: Any) -> None:
        self._asked.update(words=words, store=store)


def test_secrets_travel_in_a_file_that_only_its_owner_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"MLFLOW_TRACKING_PASSWORD": "planted", "OTHER": "1", "MORE": "2"})
    variables = credentials.collect(["MORE"])
    assert variables == {"MLFLOW_TRACKING_PASSWORD": "planted", "MORE": "2"}
    credentials.write(tmp_path, variables)
    file = tmp_path / credentials.FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and json.loads(file.read_text()) == variables
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", {"MORE": "the cluster's own"})
    credentials.restore()
    assert os.environ == {"MLFLOW_TRACKING_PASSWORD": "planted", "MORE": "the cluster's own"}


def test_outside_of_a_job_no_file_of_a_folder_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials.write(tmp_path, {"MLFLOW_TRACKING_URI": "http://evil.invalid"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    main(["preview", "nowhere.yaml"])
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_tune_hands_no_key_to_ray_which_would_log_it() -> None:
    """`sweep` takes them out of what Tune passes on; this fails where Ray passes on others."""
    from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE

    secret = {name for name in ENV_VARS_TO_PROPAGATE if name.startswith("AWS_") or "TOKEN" in name or "KEY" in name}
    assert secret <= set(credentials.KEYS)


@pytest.mark.faults
def test_a_sweep_is_resumed_by_a_job() -> None:
    """On a cluster of one node: extended by a trial, then refused for having ended, each in a job of its own."""
    site = Site()

    def bgsweep(*words: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "bgsweep.cli", *words, "--address", site.address, "--json"]
        done = site.run(command, site.environment)
        return done.returncode, (done.stdout.splitlines() or [""])[-1], done.stderr

    try:
        site.start_head(1)
        settings = [SPACE, "search.trials=2", "search.scheduler=none", "evaluate.linear.epochs=2"]
        code, out, log = bgsweep("submit", TINY, *settings, "--store", str(site.store), "--wait")
        assert code == 0, log
        name = json.loads(out)["sweep"]
        before = {each["id"]: each for each in json.loads(out)["result"]["trials"]}
        code, out, log = bgsweep("submit", "--resume", name, "search.trials=3", "--wait")
        assert code == 0, log
        assert f"sweep {name} in {site.store}" in log, "the store is that of the sweep's last job"
        result = json.loads(out)["result"]
        after = {each["id"]: each for each in result["trials"]}
        assert list(after) == ["t00", "t01", "t02"] and {each["status"] for each in after.values()} == {"completed"}
        assert {key: after[key] for key in before} == before and result["sweep"] == name
        code, out, _ = bgsweep("status", name)
        (found,) = json.loads(out)["sweeps"]
        assert (code, found["state"], len(found["trials"])) == (0, "ended", 3)
        code, out, log = bgsweep("submit", "--resume", name, "--wait")
        assert code == 2 and "the job is FAILED" in log and "the sweep has ended; there is nothing to resume" in log
    finally:
        site.remove()
