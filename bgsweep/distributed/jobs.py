"""Sweeps as jobs on a Ray cluster: submission, log, status and stop."""

import asyncio
import contextlib
import json
import logging
import secrets
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from bgsweep.config import SweepConfig, load, review_search
from bgsweep.config.columns import INCLUDED
from bgsweep.config.mask_format import mask_source
from bgsweep.config.sweep import sweep_name
from bgsweep.distributed import credentials
from bgsweep.distributed.patience import patiently
from bgsweep.errors import NO_CREDENTIALS, UserError, has_password, one_line, without_password
from bgsweep.storage.uri import is_remote
from bgsweep.tracking.provenance import commit_of_copy

# Default --store of a submitted sweep; expanded by the shell of the cluster's head node.
CLUSTER_STORE = '"${BGSWEEP_STORE:-$HOME/bgsweep_runs}"'

_KIND, _STORE, _CODE, _SWEEP = "bgsweep.kind", "bgsweep.store", "bgsweep.code", "bgsweep.sweep"
_POLL, _TAIL = 1.0, 600.0  # seconds between two looks at a job, and of one connection that follows its log


def submit(
    path: Path,
    overrides: Sequence[str],
    address: str,
    store: str | None,
    code: bool,
    names: Sequence[str],
    wait: bool,
    modules: Sequence[Path] = (),
) -> dict[str, Any]:
    """Submit a sweep as a Ray job that keeps running without this machine; the job's id is the sweep's name.

    Args:
        address: of the cluster's dashboard, ``http://HOST:8265``.
        store: folder or URI that all nodes of the cluster can access.
        code: upload this checkout of bgsweep and use it instead of the one installed on the cluster.
        names: further environment variables to pass on, besides `credentials.PASSED_ON`.
        wait: follow the job's log on stderr until its end.
        modules: folders of packages, or wheels, that hold parts which the file names; uploaded for all processes.

    Returns:
        ``sweep``, ``address``, ``passed_on`` (names of variables), and, after waiting, the sweep's own ``result``.

    Raises:
        UserError: the configuration is invalid (nothing is submitted), the cluster refuses the job, the sweep failed.
    """
    uploaded = _modules(modules)
    config = load(path, overrides)
    review_search(config)
    _refuse_local(path, config, store)
    variables = credentials.collect(names)
    name = sweep_name(config.name)
    jobs = _Jobs(address)
    command = ["sweep", path.name, *overrides, "--name", name]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, path.name).write_bytes(path.read_bytes())
        jobs.begin(command, store, code, variables, Path(folder), {_KIND: "sweep"}, name, uploaded)
    return _submitted(jobs, name, name, variables, wait)


def resubmit(
    name: str,
    words: Sequence[str],
    address: str,
    store: str | None,
    code: bool,
    names: Sequence[str],
    wait: bool,
    modules: Sequence[Path] = (),
) -> dict[str, Any]:
    """Submit ``bgsweep sweep --resume NAME`` as a job of its own; returns and raises as `submit`.

    Args:
        words: what follows the name: ``key=value`` and options.
        store: None for that of the sweep's last job.
    """
    variables = credentials.collect(names)
    jobs = _Jobs(address)
    before = jobs.sweeps().get(name)
    if before is not None and not before.status.is_terminal():
        raise UserError(
            f"{name}: its job is still {str(before.status.value).lower()}; follow it with `bgsweep status {name} "
            f"--address {jobs.address}`"
        )
    metadata = before.metadata if before is not None else {}
    its_store, its_code = store or metadata.get(_STORE) or None, code or metadata.get(_CODE) == "true"
    job = f"{name}-resumed-{secrets.token_hex(2)}"
    with tempfile.TemporaryDirectory() as folder:
        told = {_KIND: "sweep", _SWEEP: name}
        jobs.begin(
            ["sweep", "--resume", name, *words],
            its_store,
            its_code,
            variables,
            Path(folder),
            told,
            job,
            _modules(modules),
        )
    return _submitted(jobs, name, job, variables, wait)


def _submitted(jobs: "_Jobs", name: str, job: str, variables: Mapping[str, str], wait: bool) -> dict[str, Any]:
    submitted = {"sweep": name, "address": jobs.address, "passed_on": sorted(variables)}
    if not wait:
        return submitted
    print(f"{name} is submitted and keeps running without this command; its log:", file=sys.stderr, flush=True)
    jobs.follow(job)
    return {**submitted, "result": jobs.answer(job)}


def status(name: str | None, store: str | None, address: str) -> dict[str, Any]:
    """`bgsweep.sweep.control.status`, run on the cluster; jobs whose sweep has not started are listed too."""
    jobs = _Jobs(address)
    known = jobs.sweeps()
    if name is not None:
        begun = known.get(name)
        if begun is None and store is None:
            raise UserError(f"{name}: {jobs.address} has no such job; give --store for a sweep started another way")
        if begun is not None and not jobs.has_begun(name, begun):
            return {"sweeps": [_unbegun(name, begun)]}
        return jobs.ask(["status", name], store, begun)
    found: dict[str, Any] = {}
    stores = {job.metadata[_STORE]: job for job in known.values()} if store is None else {store: None}
    for its_store, job in stores.items():
        found |= {sweep["sweep"]: sweep for sweep in jobs.ask(["status"], its_store or None, job)["sweeps"]}
    found |= {name: _unbegun(name, job) for name, job in known.items() if name not in found}
    return {"sweeps": sorted(found.values(), key=lambda one: float(one["began"]), reverse=True)}


def stop(name: str, store: str | None, address: str) -> dict[str, Any]:
    """`bgsweep.sweep.control.stop`, run on the cluster; a job whose sweep has not started is stopped itself."""
    jobs = _Jobs(address)
    begun = jobs.sweeps().get(name)
    if begun is not None and not begun.status.is_terminal() and not jobs.has_begun(name, begun):
        jobs.client.stop_job(begun.submission_id)
    else:
        jobs.ask(["stop", name], store, begun)
    option = "" if store is None else f" --store {shlex.quote(store)}"
    return {"sweep": name, "follow": f"bgsweep status {name} --address {jobs.address}{option}"}


class _Jobs:
    """Jobs of bgsweep at one address, through Ray's job SDK."""

    def __init__(self, address: str) -> None:
        self.address = without_password(address)
        if urlparse(address).scheme not in ("http", "https"):
            raise UserError(f"--address {self.address}: name the cluster's dashboard, such as http://HOST:8265")
        from ray.job_submission import JobSubmissionClient

        logging.getLogger("ray.dashboard").setLevel(logging.ERROR)  # it logs each upload
        with self._asking():
            self.client = JobSubmissionClient(address)

    def begin(
        self,
        command: Sequence[str],
        store: str | None,
        code: bool,
        variables: dict[str, str],
        folder: Path,
        metadata: dict[str, str],
        name: str | None = None,
        modules: Sequence[str] = (),
    ) -> str:
        """Submit ``bgsweep COMMAND`` with a folder as its working directory; returns the job's id."""
        credentials.write(folder, variables)
        environment: dict[str, Any] = {
            "working_dir": str(folder),
            "worker_process_setup_hook": "bgsweep.distributed.credentials.restore",
        }
        if code or modules:
            environment["py_modules"] = [*([str(Path(__file__).parents[1])] if code else []), *modules]
        if code:
            environment["env_vars"] = commit_of_copy()
        quoted = CLUSTER_STORE if store is None else shlex.quote(store)
        with self._asking():
            job: str = self.client.submit_job(
                entrypoint=f"python -m bgsweep.cli {shlex.join(command)} --store {quoted} --json",
                runtime_env=environment,
                submission_id=name,
                metadata=metadata | {_STORE: store or "", _CODE: str(code).lower()},
            )
        return job

    def ask(self, command: Sequence[str], store: str | None, begun: Any) -> dict[str, Any]:
        """The result of a short command run on the cluster, which can access the sweep's store."""
        metadata = begun.metadata if begun is not None else {}
        its_store = store or metadata.get(_STORE) or None
        with tempfile.TemporaryDirectory() as folder:
            code = metadata.get(_CODE) == "true"
            job = self.begin(command, its_store, code, credentials.collect(), Path(folder), {_KIND: command[0]})
        try:
            # A short command is a job of its own, because only the cluster's nodes are sure to reach the store.
            while not self._status(job).is_terminal():
                time.sleep(_POLL / 4)
            return self.answer(job)
        finally:
            with contextlib.suppress(RuntimeError):
                self.client.delete_job(job)

    def follow(self, name: str) -> None:
        """Copy a job's log to stderr until the job ends; a broken connection is resumed where it stopped."""
        from aiohttp import ClientError

        self._shown = 0
        while not self._status(name).is_terminal():
            # With a limit: a connection that breaks without a word gives nothing any more, and no error.
            with contextlib.suppress(OSError, RuntimeError, ClientError):
                asyncio.run(asyncio.wait_for(self._tail(name), _TAIL))
            time.sleep(_POLL)
        _show(self._logs(name)[self._shown :])

    def answer(self, name: str) -> dict[str, Any]:
        """The object that a job printed as its last line.

        Raises:
            UserError: the job failed; with its own error if its log has one.
        """
        with self._asking():
            job = patiently(lambda: self.client.get_job_info(name), self.address)
        lines = self._logs(name).splitlines()
        if job.status == "SUCCEEDED":
            found: dict[str, Any] = next(json.loads(line) for line in reversed(lines) if line.startswith("{"))
            return found
        told = next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), None)
        reason = told or " ".join((job.message or "no reason is known").split())[-500:]
        raise UserError(f"{name} on {self.address}: the job is {job.status}: {reason}")

    def sweeps(self) -> dict[str, Any]:
        """The last job of each sweep, by the sweep's name."""
        with self._asking():
            jobs = self.client.list_jobs()
        found = [job for job in jobs if (job.metadata or {}).get(_KIND) == "sweep"]
        found.sort(key=lambda job: job.start_time or 0)
        return {(job.metadata or {}).get(_SWEEP) or str(job.submission_id): job for job in found}

    def has_begun(self, name: str, job: Any) -> bool:
        """True once a sweep's job has written to its store, which its log shows; a resumed sweep is there before."""
        return _SWEEP in job.metadata or f"sweep {name} " in self._logs(job.submission_id)

    def _logs(self, name: str) -> str:
        with self._asking():
            return str(patiently(lambda: self.client.get_job_logs(name), self.address))

    def _status(self, name: str) -> Any:
        with self._asking():
            return patiently(lambda: self.client.get_job_status(name), self.address)

    async def _tail(self, name: str) -> None:
        seen = 0
        async for text in self.client.tail_job_logs(name):
            # Ray sends the whole log after each reconnection; only what has not been shown is printed.
            _show(text[max(0, self._shown - seen) :])
            seen += len(text)
            self._shown = max(self._shown, seen)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn an exception of Ray into a `UserError` of one line."""
        try:
            yield
        except Exception as error:  # plain exceptions, those of requests, and Ray's own have no common parent
            if type(error).__name__ == "AuthenticationError":
                reason = "it wants its token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the file that holds it"
            else:
                reason = f"{one_line(error)[:500]}; check --address, and that the dashboard can be reached from here"
            raise UserError(f"Ray at {self.address}: {reason}") from error


def _show(text: str) -> None:
    """A job's log without the object at its end, which is this command's own to print."""
    print("".join(line for line in text.splitlines(keepends=True) if not line.startswith("{")), end="", file=sys.stderr)


def _unbegun(name: str, job: Any) -> dict[str, Any]:
    return {"sweep": name, "state": str(job.status.value).lower(), "began": (job.start_time or 0) / 1000, "trials": []}


def _modules(paths: Sequence[Path]) -> list[str]:
    """Packages to upload, which this process finds from now on too: it checks the file that names parts of them."""
    for path in paths:
        if not (path.is_dir() and (path / "__init__.py").exists()) and path.suffix != ".whl":
            raise UserError(f"--module {path}: neither a package's folder, with an __init__.py, nor a wheel; name one")
        sys.path.append(str(path.absolute() if path.suffix == ".whl" else path.absolute().parent))
    return [str(path.absolute()) for path in paths]


def _refuse_local(path: Path, config: SweepConfig, store: str | None) -> None:
    """Refuse paths that are valid on this machine only."""
    data, weights = config.experiment.data, config.experiment.encoder.weights
    masks, _ = mask_source(data.images, data.masks, data.mask_format)
    paths = {
        "data.images": data.images if data.images != "sample" else None,
        "data.columns.root": data.columns.root,
        "data.masks": masks if masks != INCLUDED else None,
        "data.pack": data.pack,
        "encoder.weights": weights if weights and Path(weights).exists() else None,
    }
    if store and has_password(store):
        raise UserError(f"--store {without_password(store)}: {NO_CREDENTIALS}")
    for key, path_or_uri in {**paths, "--store": store}.items():
        if path_or_uri and not (is_remote(path_or_uri) or path_or_uri.startswith(("/", "~"))):
            raise UserError(
                f"{path}: {key}={path_or_uri} is relative to a folder of this machine; name one that all nodes of the "
                "cluster can access: an absolute path or a URI such as s3://bucket/folder"
            )
