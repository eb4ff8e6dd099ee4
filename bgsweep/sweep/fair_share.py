"""Fair shares of one cluster between sweeps, which come and go while others run."""

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.tune.search import ConcurrencyLimiter, Searcher

_NAMESPACE = "bgsweep"
_ASK_EVERY = 2.0  # seconds


class FairShareSearcher(ConcurrencyLimiter):
    """Limits a searcher to as many trials at a time as ``share`` allows, which may change at any time."""

    def __init__(self, searcher: Searcher, share: Callable[[], int]) -> None:
        super().__init__(searcher, max_concurrent=max(1, share()))
        self._share = share

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is a str
        # Asked for each proposal, since other sweeps come and go.
        self.max_concurrent = self._share()
        found: dict[str, Any] | str | None = super().suggest(trial_id)
        return found


class FairShare:
    """This sweep's share of the trials that the cluster can run.

    The others know a sweep by a named actor, which Ray ends together with the sweep's driver, however that ends.

    Args:
        name: of the sweep.
        room: gives the number of this sweep's trials that the whole cluster can run at a time, which may grow.
        most: the user's limit of trials at a time, if any.
        warm: trials are actors that Tune reuses. They may wait for capacity; trials on Ray Train fail if they wait for
            long, so there are never more than fit.
    """

    def __init__(self, name: str, room: Callable[[], int], most: int | None, warm: bool) -> None:
        self._room, self._most, self._warm = room, most, warm
        self._name = f"{time.time():018.6f} {name}"  # the oldest first
        here: Any = ray.remote(num_cpus=0, max_restarts=-1)(_Here)  # its node may die
        self._actor = here.options(name=self._name, namespace=_NAMESPACE).remote()
        ray.get(self._actor.__ray_ready__.remote())
        self._asked, self._found = -_ASK_EVERY, 1

    def __call__(self) -> int:
        if time.monotonic() - self._asked >= _ASK_EVERY:
            self._asked = time.monotonic()
            actors = ray.util.list_named_actors(all_namespaces=True)
            others = (actor["name"] for actor in actors if actor["namespace"] == _NAMESPACE)
            self._found = self._part(sorted({self._name, *others}))
        return self._found

    def _part(self, sweeps: list[str]) -> int:
        room = self._room()
        if len(sweeps) == 1 and self._warm:
            return self._most or room
        share = part(room, sweeps.index(self._name), len(sweeps))
        return min(share, self._most or share)


class _Here:
    """An actor whose existence says that a sweep is running."""


def part(room: int, age: int, sweeps: int) -> int:
    """Trials that a sweep may run; ``age`` is its rank, 0 for the oldest, which gets the remainder.

    If one trial fills the cluster, the younger sweeps wait until it ends.
    """
    return room // sweeps + (age < room % sweeps)
