"""A pool of Ray actors that make masks, views or features, and survive the death of their processes."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from bgsweep.errors import UserError

# A process that dies (memory, a node that goes) is started again, and its task runs again: all tasks are repeatable.
_RETRIES = {"max_restarts": 3, "max_task_retries": 3}
# One task runs while the next one waits at the actor, so that no actor idles for a round trip to this process.
TASKS_PER_ACTOR = 2


class ActorsDied(UserError):
    """An actor's process died more often than it is started again."""


def returns_user_errors(method: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of an actor's method that returns a `UserError` as its result: raised, Ray would wrap it."""

    @functools.wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except UserError as error:
            return error

    return wrapped


class ActorPool:
    """Actors of one class, whose method `run` is called with tasks.

    Args:
        actor: the class; its `run` is decorated with `returns_user_errors`.
        arguments: of its constructor.
        count: number of actors.
        options: Ray's, such as `num_cpus`.
        task: verb phrase for the error when actors keep dying, as in "a process that … died again and again".
        advice: the end of that error: what to change.
    """

    def __init__(
        self, actor: type, arguments: tuple[Any, ...], count: int, options: Mapping[str, Any], task: str, advice: str
    ) -> None:
        import ray

        self._error = f"a process that {task} died again and again, perhaps for lack of memory; {advice}"
        remote: Any = ray.remote(actor).options(**_RETRIES, **options)
        self.actors: list[Any] = [remote.remote(*arguments) for _ in range(count)]

    def close(self) -> None:
        """End the actors, whose resources are free again."""
        import ray

        for actor in self.actors:
            ray.kill(actor)

    def map(self, tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """The results of `run` for each tuple of arguments, in the tasks' order.

        Raises:
            UserError: a task's own, or `ActorsDied`.
        """
        done: dict[int, Any] = {}
        following = 0
        for number, reference in self._finished(tasks):
            done[number] = reference
            while following in done:
                yield self.get(done.pop(following))
                following += 1

    def map_unordered(self, tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """As `map`, but in the order in which tasks finish."""
        for _, reference in self._finished(tasks):
            yield self.get(reference)

    def get(self, reference: Any) -> Any:
        """The result that a reference stands for; raises as `map`."""
        import ray
        from ray.exceptions import RayActorError

        try:
            result = ray.get(reference)
        except RayActorError as error:
            raise ActorsDied(self._error) from error
        if isinstance(result, UserError):
            raise result
        return result

    def _finished(self, tasks: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """Number and reference of each task, as they finish."""
        import ray

        waiting = enumerate(tasks)
        running: dict[Any, tuple[int, Any]] = {}

        def submit_next(actor: Any) -> None:
            for number, arguments in islice(waiting, 1):
                running[actor.run.remote(*arguments)] = number, actor

        for actor in self.actors * TASKS_PER_ACTOR:
            submit_next(actor)
        while running:
            (ready,), _ = ray.wait(list(running), num_returns=1)
            number, actor = running.pop(ready)
            submit_next(actor)
            yield number, ready
