"""One experiment on Ray Train's workers, restarted from its checkpoints where workers or nodes are lost.

Ray Train alone waits four times 60 s for workers to start, and fails. Here a run waits for the cluster to grow again,
or for others to leave room, and tells so, or goes on with fewer workers (`workers.min_count`). Each restart is a new
Ray Train run in one folder. Ray Train's own elastic workers may be of any number, also one that does not divide the
batch.
"""

import threading
import time
from queue import Empty
from typing import Any

import ray

from bgsweep.config import SweepConfig
from bgsweep.distributed.pulse import Pulse
from bgsweep.distributed.resources import capacity, nodes, say, unused_nodes, wait_for_resources
from bgsweep.distributed.train import (
    RESTORED,
    STOPPED_AT,
    WORKERS_CURE,
    OnEpoch,
    OnKept,
    ray_trainer,
    worker_bundles,
)
from bgsweep.errors import Stopped, UserError, WorkersFailed, last_line, one_line, warn_once
from bgsweep.stopping import Asked, Request, leave_on_sigterm
from bgsweep.storage.uri import Uri, uri_of

_WAIT_MINUTES = 60.0  # where search.wait_minutes is not set
_STARTS = 3  # further tries to start workers for which the cluster has room
_GROW_EVERY = 60.0  # seconds between two looks for room for more workers


class RayTraining:
    """A run on Ray Train; the arguments are those of `bgsweep.distributed.train.train`."""

    def __init__(
        self,
        config: SweepConfig,
        folder: Uri,
        on_epoch: OnEpoch,
        seeds: int,
        start: Uri | None = None,
        pulse: tuple[tuple[str, str], str] | None = None,
        on_kept: OnKept | None = None,
        known: int | None = None,
    ) -> None:
        self._config, self._folder, self._on_epoch, self._on_kept = config, folder, on_epoch, on_kept
        self._loop = {"seeds": seeds, "start": start, "pulse": pulse}
        self._pulse = Pulse(*pulse, lambda: "its start") if pulse else None
        self._counts = config.experiment.worker_counts()
        self._known = known
        self._epoch = known or 0  # the last one that was passed on
        self._looked = time.monotonic()

    def run(self) -> Uri:
        """Train to the end, and give the last checkpoint's folder.

        Raises:
            UserError: the configuration or data cannot be used, or the cluster has no room for the workers in time.
            WorkersFailed: workers died or did not start, more often than `workers.max_failures` allows.
            Stopped: there was a SIGTERM.
        """
        died = starts = 0
        full = False
        search, most = self._config.search, self._config.experiment.workers.max_failures
        with leave_on_sigterm() as asked:
            while True:
                count, waited = self._room(asked, full)
                before, starts = self._epoch, 0 if waited else starts
                outcome, stopped = self._fit(count, asked)
                if not isinstance(outcome, BaseException):
                    if stopped is None:
                        return uri_of(outcome.checkpoint.path, outcome.checkpoint.filesystem)
                    if asked() is Request.LEAVE:
                        raise stopped
                    starts, full = 0, False
                    continue  # with more workers
                if search.refill_epochs is not None and self._epoch - before >= search.refill_epochs:
                    died = starts = 0
                kind, error = classify(outcome)
                full = kind == "full"
                died, starts = died + (kind == "died"), starts + 1 if full or kind == "start" else 0
                if kind == "other" or died > most or starts > _STARTS:
                    raise error from None  # the causes of Ray's errors have no end, and Tune looks for it

    def _room(self, asked: Asked, full: bool) -> tuple[int, bool]:
        """Wait for room for the fewest workers; give the most that there is room for, and true if it had to wait.

        Only where others have proved to hold the room (``full``), what they use does not count: after a run has ended,
        its own workers' resources still seem used for a moment.
        """
        waited = False

        def tell(line: str) -> None:
            nonlocal waited
            waited = True
            if asked() is Request.LEAVE:
                raise Stopped(self._epoch, 0)
            if self._pulse:
                self._pulse.waits(line)
            else:
                say(line)

        minutes = self._config.search.wait_minutes
        least = worker_bundles(self._config, self._counts[0])
        wait_for_resources(least, WORKERS_CURE, _WAIT_MINUTES if minutes is None else minutes, tell, unused=full)
        if waited and self._pulse:
            self._pulse.waits("")
        there = unused_nodes() if full else nodes()
        fitting = [each for each in self._counts if capacity(there, worker_bundles(self._config, each), 1)]
        return max(self._counts[:1] + fitting), waited

    def _grows(self, count: int) -> bool:
        """True, every minute at the most, if there is room for more workers that nobody else uses."""
        larger = [each for each in self._counts if each > count]
        if not larger or time.monotonic() - self._looked < _GROW_EVERY:
            return False
        self._looked = time.monotonic()
        return bool(capacity(unused_nodes(), worker_bundles(self._config, larger[0] - count), 1))

    def _fit(self, count: int, asked: Asked) -> tuple[Any, Stopped | None]:
        """Run Ray Train in a thread, so that this one can report epochs as they finish.

        Returns:
            Ray Train's result or its error, and where the workers left if they were asked to.
        """
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # 0 CPUs: the queues' actors must not take a core that the trial was given. Here: on another node they could be
        # lost with it.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        reports, stops = (Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here}) for _ in range(2))
        known = None if self._known is None else self._epoch
        trainer = ray_trainer(
            self._config, count, self._folder, reports, {"stops": stops, "known": known, **self._loop}
        )
        outcome: list[Any] = []

        def fit() -> None:
            try:
                outcome.append(trainer.fit())
            except BaseException as error:  # given to the caller's thread
                outcome.append(error)
            reports.put(None)

        # A daemon, so that Ctrl-C in the caller ends the process although the thread waits for Ray.
        threading.Thread(target=fit, name="ray-train", daemon=True).start()
        stopped = self._follow(count, asked, _Reader(reports), stops)
        for queue in (reports, stops):
            queue.shutdown()
        return outcome[0], stopped

    def _follow(self, count: int, asked: Asked, reports: Any, stops: Any) -> Stopped | None:
        """Pass on what workers report until their end, and requests to leave to them; give where they left, if so."""
        told = False
        stopped: Stopped | None = None
        while True:
            if not told and (asked() is Request.LEAVE or self._grows(count)):
                stops.put(True)
                told = True
            try:
                report = reports.get(timeout=0.5)
            except Empty:
                continue
            if report is None:
                return stopped
            metrics, checkpoint, warnings = report
            for line in warnings:
                warn_once(line)
            if STOPPED_AT in metrics:
                if told:
                    stopped = Stopped(*metrics[STOPPED_AT])
                if self._on_kept and checkpoint:
                    self._on_kept(checkpoint)
            elif RESTORED in metrics:
                *before, last = metrics[RESTORED]
                for each in before:
                    self._pass_on(each, None)
                self._pass_on(last, metrics["checkpoint"])
            else:
                self._pass_on(metrics, checkpoint)

    def _pass_on(self, metrics: dict[str, Any], checkpoint: Uri | None) -> None:
        if metrics["epoch"] > self._epoch:  # after a restart the epochs since the checkpoint are reported again
            self._epoch = metrics["epoch"]
            self._on_epoch(metrics, checkpoint)


class _Reader:
    """Takes what comes into one of Ray's queues.

    Not by the queue's own ``get`` with a time limit, which raises within its actor: Ray's dashboard showed a failed
    task for each half second of a trial.
    """

    def __init__(self, reports: Any) -> None:
        self._actor = reports.actor
        self._next: Any = None

    def get(self, timeout: float) -> Any:
        """The next thing; raises `queue.Empty` if there is none within so many seconds."""
        self._next = self._next or self._actor.get.remote()
        if not ray.wait([self._next], timeout=timeout)[0]:
            raise Empty
        found, self._next = ray.get(self._next), None
        return found


def classify(error: BaseException) -> tuple[str, BaseException]:
    """The kind of a failure of Ray Train, and an error with one line.

    Kinds: ``full`` (others left no room for workers in time), ``start`` (workers did not start), ``died`` (one or more
    did), ``preempted`` (their node was taken away), and ``other``, which repeats itself.
    """
    from ray.train import ControllerError, WorkerGroupError
    from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError
    from ray.train.v2.api.exceptions import PreemptionError

    if isinstance(error, PreemptionError):
        return "preempted", WorkersFailed("the workers' node was taken away")
    if isinstance(error, ray.exceptions.RayActorError):
        return "died", WorkersFailed(f"Ray Train's controller died: {last_line(error)}")
    if isinstance(error, WorkerGroupError):
        return _of_workers(error.worker_failures)
    failed = error.controller_failure if isinstance(error, ControllerError) else None
    if isinstance(failed, WorkerGroupStartupTimeoutError):
        return "full", WorkersFailed(
            f"{failed.num_workers} workers did not start in time, {_STARTS + 1} times, although the cluster has room; "
            "other programs may use it, or set RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S before the command"
        )
    if isinstance(failed, WorkerGroupStartupFailedError):
        return "start", WorkersFailed(f"the workers did not start: {one_line(failed)}")
    return "other", error


def _of_workers(failures: dict[int, Any]) -> tuple[str, BaseException]:
    causes = {rank: _inner(failure) for rank, failure in sorted(failures.items())}
    for found in causes.values():
        if isinstance(found, UserError):
            return "other", found
    dead = {rank: each for rank, each in causes.items() if isinstance(each, ray.exceptions.RayActorError)}
    if any(getattr(each, "preempted", False) for each in dead.values()):
        return "preempted", WorkersFailed("the workers' node was taken away")
    # A worker that died is the cause; what the others raise is that they cannot reach it.
    rank, found = next(iter((dead or causes).items()), (0, None))
    if isinstance(found, ray.exceptions.RayActorError):
        said = last_line(found).partition(" Some common causes")[0]
        return "died", WorkersFailed(f"worker {rank} died: {said}")
    return "died", WorkersFailed(f"worker {rank}: {type(found).__name__}: {last_line(found)}")


def _inner(failure: Any) -> Any:
    """The `RayActorError` of a worker that died, else what it raised."""
    return getattr(failure, "health_check_failure", None) or getattr(failure, "cause", None) or failure
