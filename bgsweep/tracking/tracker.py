"""MLflow runs: their parameters, metrics, files and final status."""

import functools
import json
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt
import yaml

from bgsweep.config import Experiment, SweepConfig
from bgsweep.config.metric_names import with_new_names
from bgsweep.errors import without_password
from bgsweep.tracking.client import experiment_id, mlflow_client, pages
from bgsweep.tracking.datasets import dataset_digest
from bgsweep.tracking.parameters import parameter_texts, shown_parameters
from bgsweep.tracking.provenance import owner, owner_lives, provenance, source
from bgsweep.tracking.writer import Writer, is_final

Status = Literal["FINISHED", "FAILED", "KILLED"]
T = TypeVar("T")

PATIENCE = 3600.0
"""Seconds for which an unreachable MLflow server is retried."""

TAG_LENGTH = 8000  # MLflow's limit
_PARAMS_PER_CALL, _METRICS_PER_CALL = 100, 1000  # MLflow's limits


class Tracker:
    """Writes to one MLflow experiment, from one process; metrics and files are queued and never delay training.

    A context manager. On entry it ends the runs of killed drivers. On exit it ends its own open runs (FINISHED; KILLED
    after Ctrl-C and for trials that are still open; FAILED after any other exception) and waits for the queue.

    Args:
        address: an MLflow tracking URI. With SQLite, files go into the folder ``artifacts`` beside the database.
        experiment: name of the MLflow experiment, created if it does not exist.
        patience: seconds for which writes to an unreachable server are retried.

    Raises:
        UserError: MLflow is unreachable.
    """

    def __init__(self, address: str, experiment: str = "bgsweep", *, patience: float = PATIENCE) -> None:
        self.address = address
        with mlflow_client(address) as self.client:
            self.experiment_id = experiment_id(self.client, address, experiment)
        self._writer = Writer(without_password(address), patience)
        self._parents: list[str] = []
        self._trials: list[str] = []
        self._begun: dict[str, Future[str]] = {}

    def __enter__(self) -> Self:
        self.reconcile()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status: Status = "FINISHED" if kind is None else "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"
        for run in list(self._trials):
            self.finish(run, "KILLED" if kind is None else status)
        for run in list(self._parents):
            self.finish(run, status)
        self.flush(60 if kind is None else 15)

    def address_of(self, run: str) -> str:
        """Address of a run's page in MLflow's UI; without a server, the run's id and the store to open."""
        server = without_password(self.address)
        return f"{server.rstrip('/')}/{self.page(run)}" if server.startswith("http") else f"run {run} of {server}"

    def abandon(self) -> None:
        """Forget the open runs, which another process has taken over."""
        self._trials.clear()
        self._parents.clear()

    def sweep_run(self, name: str, config: SweepConfig, tags: Mapping[str, str] | None = None) -> str:
        """Start a sweep's run, the parent of its trials' runs; returns its id."""
        params = {"search": config.search.model_dump(mode="json"), "evaluate": config.evaluate.model_dump(mode="json")}
        return self._begin_parent(name, config, params, {"bgsweep.kind": "sweep", **(tags or {})})

    def reopen(self, run: str) -> str:
        """Resume the run of a sweep whose driver died; returns its id."""
        self._writer.ask(lambda: self.client.update_run(run, status="RUNNING"))
        self.set_tags(run, owner())
        self._parents.append(run)
        return run

    def pretrain_run(self, name: str, config: SweepConfig, tags: Mapping[str, str] | None = None) -> str:
        """Start the run of an experiment outside of a sweep; returns its id."""
        digest = {"bgsweep.kind": "pretrain", "bgsweep.digest": config.experiment.digest}
        return self._begin_parent(name, config, config.experiment.model_dump(mode="json"), {**digest, **(tags or {})})

    def evaluation_run(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> str:
        """Start the run of an encoder's evaluation; returns its id."""
        origin = {**provenance(), **source("evaluate"), **owner()}
        run = self._create(name, {**origin, "bgsweep.kind": "evaluation", **(tags or {})})
        self._parents.append(run)
        self._log_params(run, params)
        return run

    def trial_run(
        self,
        parent: str,
        trial: str,
        experiment: Experiment,
        tags: Mapping[str, str] | None = None,
        searched: Mapping[str, Any] | None = None,
        at: int | None = None,
    ) -> str:
        """Start a trial's run as a child of its sweep's run, or reopen it if it exists.

        Does not wait for MLflow. The returned name stands for the run in all other calls; `run_id` gives MLflow's id.

        Args:
            searched: the trial's values. They and `bgsweep.tracking.parameters.KEY_PARAMETERS` are the run's
                parameters; the rest of the experiment, in which a reader would not find them, is in ``config.yaml``.
            at: when it began, in milliseconds, if it is not now; a run that exists keeps its own time.
        """
        own = {"mlflow.parentRunId": parent, "bgsweep.trial": trial, **source("sweep")}
        every = {**own, "bgsweep.kind": "trial", "bgsweep.digest": experiment.digest, **owner(), **(tags or {})}
        query = f"tags.`mlflow.parentRunId` = '{parent}' and tags.`bgsweep.trial` = '{trial}'"
        began = _milliseconds() if at is None else at

        def begin() -> str:
            known = pages(self.client.search_runs, [self.experiment_id], query)
            run = known[0] if known else self._new(trial, every, began)
            if known:
                self.client.update_run(run.info.run_id, status="RUNNING")
            return str(run.info.run_id)

        run = f"{parent}/{trial}"
        self._begun[run] = self._writer.submit(begin)
        self.set_tags(run, every)
        self._trials.append(run)
        self._log_params(run, shown_parameters(experiment, searched or {}))
        self._log_config(run, {"experiment": experiment.model_dump(mode="json")})
        return run

    def run_id(self, run: str, wait: bool = True) -> str:
        """MLflow's id of a run; without waiting, empty if MLflow has not created the run yet.

        Raises:
            UserError: MLflow rejects the run, or is unreachable for too long.
        """
        begun = self._begun.get(run)
        if begun is None:
            return run
        if wait:
            return self._writer.ask(lambda: self._id(run))
        return begun.result() if begun.done() and not begun.exception() else ""

    def log_metrics(
        self,
        run: str,
        epoch: int,
        metrics: Mapping[str, float],
        model: str | None = None,
        dataset: tuple[str, str] | None = None,
        at: int | None = None,
    ) -> None:
        """Queue an epoch's metrics; the epoch is their step.

        Args:
            model: id of the logged model that was evaluated.
            dataset: name and `dataset_digest` of the evaluated images.
            at: their time, if it is not now. MLflow adds metrics that a run has already, with the same time, to the
                model only: so the run's curve does not get a point twice.
        """
        from mlflow.entities import Metric

        now = _milliseconds() if at is None else at
        name_of_set, digest = dataset or (None, None)
        batch = [
            Metric(name, float(value), now, epoch, model_id=model, dataset_name=name_of_set, dataset_digest=digest)
            for name, value in with_new_names(metrics).items()
            if name != "epoch"
        ]

        self._writer.gather(run, [batch], functools.partial(self._send_metrics, run))

    def _send_metrics(self, run: str, batches: list[list[Any]]) -> None:
        """Send the metrics of several epochs in one call; one by one if that is refused, so that the others arrive."""
        metrics = [metric for batch in batches for metric in batch]
        try:
            for start in range(0, len(metrics), _METRICS_PER_CALL):
                self.client.log_batch(self._id(run), metrics=metrics[start : start + _METRICS_PER_CALL])
        except Exception as error:
            if len(batches) == 1 or not is_final(error):
                raise
            for batch in batches:
                self._writer.submit(functools.partial(self._send_metrics, run, [batch]))

    def last_epoch(self, run: str, metric_name: str = "loss") -> int:
        """The last epoch, or other step, for which a run has a metric; 0 if it has none."""
        return max(self.times(run, metric_name), default=0)

    def times(self, run: str, metric_name: str = "loss") -> dict[int, int]:
        """The times, in milliseconds, at which a run's metric was logged, by step."""
        points = self._writer.ask(lambda: self.client.get_metric_history(self._id(run), metric_name))
        return {point.step: point.timestamp for point in points}

    def page(self, run: str) -> str:
        """The part of the address of a run's page after that of MLflow's server.

        MLflow shows pages for agents, whatever the experiment's kind, until its user asks for model training.
        """
        return f"#/experiments/{self.experiment_id}/runs/{run}?workflowType=machine_learning"

    def set_tags(self, run: str, tags: Mapping[str, str]) -> None:
        """Queue tags."""
        from mlflow.entities import RunTag

        batch = [RunTag(key, str(value)) for key, value in tags.items()]
        self._writer.submit(lambda: self.client.log_batch(self._id(run), tags=batch))

    def set_tag(self, run: str, key: str, value: str) -> None:
        """Queue one tag."""
        self.set_tags(run, {key: value})

    def log_dataset(self, run: str, context: str, name: str, digests: Mapping[str, str], count: int) -> None:
        """Queue an input dataset.

        Args:
            context: train, validation, test or knn_bank.
            digests: those of an `ImageDataset`.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        profile = json.dumps({"count": count, **digests})
        source = json.dumps({"name": name, **digests})
        dataset = Dataset(name, dataset_digest(digests), "local", source, profile=profile)
        entry = DatasetInput(dataset, [InputTag("mlflow.data.context", context)])
        self._writer.submit(lambda: self.client.log_inputs(self._id(run), [entry]))

    def log_json(self, run: str, value: Any, path: str) -> None:
        """Queue a file of plain values, such as an augmentation policy; ``path`` is relative to the run's files."""
        self.log_text(run, json.dumps(value, indent=2) + "\n", path)

    def log_text(self, run: str, text: str, path: str) -> None:
        """Queue a text file; ``path`` is relative to the run's files."""
        self._log_bytes(run, text.encode("utf-8", "surrogateescape"), path)

    def log_image(self, run: str, image: npt.NDArray[np.uint8], path: str) -> None:
        """Queue an RGB image, height x width x 3, as a PNG; ``path`` is relative to the run's files."""
        import cv2

        self._log_bytes(run, cv2.imencode(".png", image[..., ::-1])[1].tobytes(), path)

    def ask(self, call: Callable[[], T]) -> T:
        """Make a call and wait for its result, after all queued calls; retried while MLflow is unreachable.

        Raises:
            UserError: MLflow rejects it, or is unreachable for too long.
        """
        return self._writer.ask(call)

    def finish(self, run: str, status: Status, at: int | None = None) -> None:
        """Queue a run's end; ``at`` is its time in milliseconds, if it is not now."""
        ended = _milliseconds() if at is None else at
        self._writer.submit(lambda: self.client.set_terminated(self._id(run), status, end_time=ended))
        for open_runs in (self._trials, self._parents):
            open_runs[:] = [each for each in open_runs if run not in (each, self.run_id(each, wait=False))]

    def flush(self, timeout: float = 60) -> bool:
        """Wait until the queue is written; if some writes are missing, log a warning and return False."""
        return self._writer.flush(timeout)

    def reconcile(self) -> list[str]:
        """End, as KILLED, runs whose process on this host no longer exists (after SIGKILL); returns their ids."""
        mine = f"attributes.status = 'RUNNING' and tags.`bgsweep.host` = '{socket.gethostname()}'"

        def search() -> list[Any]:
            everywhere = [found.experiment_id for found in self.client.search_experiments()]
            return pages(self.client.search_runs, everywhere, mine)

        gone = [run.info.run_id for run in self._writer.ask(search) if not owner_lives(run.data.tags)]
        for run in gone:
            self.finish(run, "KILLED")
        return gone

    def _begin_parent(self, name: str, config: SweepConfig, params: dict[str, Any], tags: dict[str, str]) -> str:
        run = self._create(name, {**provenance(), **source(tags["bgsweep.kind"]), **owner(), **tags})
        self._parents.append(run)
        self._log_params(run, params)
        # Wait: an artifact store that cannot be written must fail before the training, not when its model is logged.
        self._log_config(run, config.model_dump(mode="json", by_alias=True), wait=True)
        return run

    def _create(self, name: str, tags: dict[str, str]) -> str:
        began = _milliseconds()
        return str(self._writer.ask(lambda: self._new(name, tags, began)).info.run_id)

    def _new(self, name: str, tags: dict[str, str], began: int) -> Any:
        return self.client.create_run(self.experiment_id, start_time=began, tags=tags, run_name=name)

    def _id(self, run: str) -> str:
        """MLflow's id of a run, for calls in the writer's thread, which come after the call that creates the run."""
        begun = self._begun.get(run)
        if begun is None:
            return run
        if begun.exception():  # RuntimeError, because the original error could be taken for an unreachable server
            raise RuntimeError(f"the run {run} could not be created: {begun.exception()}")
        return begun.result()

    def _log_params(self, run: str, tree: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(key, text) for key, text in parameter_texts(tree).items()]

        def write(start: int) -> None:
            self.client.log_batch(self._id(run), params=params[start : start + _PARAMS_PER_CALL])

        for start in range(0, len(params), _PARAMS_PER_CALL):
            self._writer.submit(functools.partial(write, start))

    def _log_config(self, run: str, tree: dict[str, Any], wait: bool = False) -> None:
        """Queue ``config.yaml``, which ``bgsweep pretrain`` and ``bgsweep sweep`` can read."""
        text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
        self._log_bytes(run, text.encode("utf-8", "surrogateescape"), "config.yaml", wait)

    def _log_bytes(self, run: str, content: bytes, path: str, wait: bool = False) -> None:
        folder, _, name = path.rpartition("/")

        def write() -> None:
            with tempfile.TemporaryDirectory() as temporary:
                file = Path(temporary, name)
                file.write_bytes(content)
                self.client.log_artifact(self._id(run), str(file), folder or None)

        (self._writer.ask if wait else self._writer.submit)(write)


def _milliseconds() -> int:
    return int(time.time() * 1000)
