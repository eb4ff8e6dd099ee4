"""Evaluations on a Ray cluster: actors that each hold the encoder and see parts of large picture sets."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from bgsweep.config import SuiteConfig
from bgsweep.errors import UserError
from bgsweep.evaluation.context import EvalContext, Task

_ENDED = object()


class RayWorkers:
    """What an `EvalContext` takes as its workers; Ray is joined or started when the first large set comes.

    Args:
        make: makes a worker's own examination there.
    """

    def __init__(self, make: Callable[[], EvalContext], config: SuiteConfig) -> None:
        self._make = make
        self._settings = config.workers
        self._device = config.device
        self._session = ExitStack()
        self._actors: list[Any] = []
        self._held: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def __call__(self, task: Task, parts: Iterable[Any]) -> Iterator[Any]:
        """The task's results in the parts' order. Each actor has one part at hand and the next one waiting.

        Raises:
            UserError: what a worker could not read, or workers that die again and again.
        """
        import ray

        self._actors = self._actors or self._started()
        held, waiting, numbers = [self._held, ray.put(task)], iter(parts), itertools.count()
        running: dict[Any, tuple[int, Any]] = {}
        done: dict[int, Any] = {}

        def employ(actor: Any) -> None:
            part = next(waiting, _ENDED)
            if part is not _ENDED:
                running[actor.run.remote(held, part)] = next(numbers), actor

        for actor in self._actors * 2:
            employ(actor)
        following = 0
        while running or done:
            while following in done:
                yield _result(done.pop(following))
                following += 1
            if running:
                (ready,), _ = ray.wait(list(running), num_returns=1)
                number, actor = running.pop(ready)
                done[number] = ready
                employ(actor)

    def _started(self) -> list[Any]:
        import ray

        from bgsweep.distributed.session import ray_session

        settings = self._settings
        self._session.enter_context(ray_session((settings.count or 1) * settings.cpus))
        have = ray.cluster_resources()
        gpus = settings.gpus
        if gpus is None:
            gpus = 1.0 if have.get("GPU", 0) and self._device != "cpu" else 0.0
        count = settings.count or int(have["GPU"] / gpus if gpus else have["CPU"] / settings.cpus)
        # A process that dies (memory, a node that goes) is started again, and its part is seen again.
        options = {"num_cpus": settings.cpus, "num_gpus": gpus, "max_restarts": 3, "max_task_retries": 3}
        self._held = ray.put(self._make)
        return [ray.remote(_EvaluationWorker).options(**options).remote(settings.cpus) for _ in range(max(1, count))]


def wants_workers(config: SuiteConfig) -> bool:
    """Whether large sets are to be seen by Ray workers at all."""
    count = config.workers.count
    return bool(os.environ.get("RAY_ADDRESS")) if count is None else count > 0


class _EvaluationWorker:
    """An examination in a process of its own. A `UserError` is handed over as a result: raised, it would be wrapped."""

    def __init__(self, cpus: float) -> None:
        from bgsweep.training.run import limit_threads

        limit_threads(cpus)
        self._exam: EvalContext | None = None

    def run(self, held: list[Any], part: Any) -> Any:
        """The task's result; ``held`` refers to what makes an examination, and to the task."""
        import ray

        make, task = held
        try:
            self._exam = self._exam or ray.get(make)()
            return ray.get(task)(self._exam, part)
        except UserError as error:
            return error


def _result(reference: Any) -> Any:
    import ray
    from ray.exceptions import RayActorError

    try:
        found = ray.get(reference)
    except RayActorError as error:
        raise UserError(
            "a process that evaluates died again and again, perhaps for lack of memory; lower workers.count or "
            "evaluate.batch_size"
        ) from error
    if isinstance(found, UserError):
        raise found
    return found
