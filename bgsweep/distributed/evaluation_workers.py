"""Evaluation on a Ray cluster: actors that each hold the encoder and evaluate parts of large datasets."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from bgsweep.config import SuiteConfig
from bgsweep.config.base import gpus_for
from bgsweep.distributed.actor_pool import ActorPool, returns_user_errors
from bgsweep.evaluation.context import EvalContext, Task

_MANY = 4096  # more workers than any cluster has room for
_CURE = "workers.count (0: no workers), workers.cpus or workers.gpus"


class RayWorkers:
    """The workers of an `EvalContext`; Ray is joined or started when the first large dataset is evaluated.

    Args:
        make: makes an `EvalContext` in each worker.
    """

    def __init__(self, make: Callable[[], EvalContext], config: SuiteConfig) -> None:
        self._make = make
        self._settings = config.workers
        self._device = config.device
        self._session = ExitStack()
        self._pool: ActorPool | None = None
        self._stored: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.close()
        self._session.close()

    @property
    def count(self) -> int:
        """The number of workers, which are started if they are not running yet.

        Raises:
            UserError: the cluster has no room for them.
        """
        self._pool = self._pool or self._start()
        return len(self._pool.actors)

    def __call__(self, task: Task, parts: Iterable[Any]) -> Iterator[Any]:
        """The task's result for each part, in the parts' order.

        Raises:
            UserError: a worker cannot read something, workers keep dying, or the cluster has no room for them.
        """
        import ray

        self._pool = self._pool or self._start()
        # In a list: Ray would resolve references that are arguments themselves, for each part again.
        stored = [self._stored, ray.put(task)]
        yield from self._pool.map((stored, part) for part in parts)

    def _start(self) -> ActorPool:
        import ray

        from bgsweep.distributed.resources import capacity, nodes, say, wait_for_resources
        from bgsweep.distributed.session import ray_session

        settings = self._settings
        least = settings.count or 1
        if not ray.is_initialized():  # as it is inside a Ray task
            self._session.enter_context(ray_session(least * settings.cpus))
        gpus = gpus_for(settings.gpus, self._device, any(node.get("GPU") for node in nodes()))
        one = {"CPU": settings.cpus, "GPU": gpus}
        # Ray lets actors that fit nowhere, and their tasks, wait for ever.
        wait_for_resources([one] * least, _CURE, tell=say, wait_key=None)
        self._stored = ray.put(self._make)
        return ActorPool(
            _EvaluationWorker,
            (settings.cpus,),
            settings.count or capacity(nodes(), [one], _MANY),
            {"num_cpus": settings.cpus, "num_gpus": gpus},
            task="evaluates",
            advice="lower workers.count or evaluate.batch_size",
        )


def wants_workers(config: SuiteConfig) -> bool:
    """True if large datasets are evaluated by Ray workers."""
    count = config.workers.count
    return bool(os.environ.get("RAY_ADDRESS")) if count is None else count > 0


class _EvaluationWorker:
    """An `EvalContext` in a process of its own."""

    def __init__(self, cpus: float) -> None:
        from bgsweep.training.run import limit_threads

        limit_threads(cpus)
        self._context: EvalContext | None = None

    @returns_user_errors
    def run(self, stored: list[Any], part: Any) -> Any:
        """The task's result; `stored` holds Ray's references to the context's factory and to the task."""
        import ray

        make, task = stored
        # Made once for each worker: it holds the encoder and the opened data sets.
        self._context = self._context or ray.get(make)()
        return ray.get(task)(self._context, part)
