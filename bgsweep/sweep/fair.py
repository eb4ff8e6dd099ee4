"""Several sweeps on one cluster: each runs as many trials as its share of the room allows, whenever it asks."""

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.tune.search import ConcurrencyLimiter, Searcher

_NAMESPACE = "bgsweep"
_ASK_EVERY = 2.0  # seconds


class Fair(ConcurrencyLimiter):
    """Lets a searcher propose no more trials at a time than ``share`` says, which may change as sweeps come and go."""

    def __init__(self, searcher: Searcher, share: Callable[[], int]) -> None:
        super().__init__(searcher, max_concurrent=max(1, share()))
        self._share = share

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is a str
        self.max_concurrent = self._share()
        found: dict[str, Any] | str | None = super().suggest(trial_id)
        return found


class Share:
    """This sweep's part of the trials that the cluster has room for.

    A sweep is known to the others by an actor of its name, which ends with the sweep's driver, however that ends.

    Args:
        name: of the sweep.
        room: trials of this sweep that the whole cluster has room for at a time.
        most: trials at a time that the user allows; None leaves it to the room.
        keeps_one: whether Tune keeps an idle actor for the next trial, which counts too.
    """

    def __init__(self, name: str, room: int, most: int | None, keeps_one: bool) -> None:
        self._room, self._most, self._keeps_one = room, most or room, keeps_one
        self._name = f"{time.time():018.6f} {name}"  # the oldest first
        self._actor = ray.remote(num_cpus=0)(_Here).options(name=self._name, namespace=_NAMESPACE).remote()
        ray.get(self._actor.__ray_ready__.remote())
        self._asked, self._found = 0.0, 1

    def __call__(self) -> int:
        if time.monotonic() - self._asked > _ASK_EVERY:
            actors = ray.util.list_named_actors(all_namespaces=True)
            sweeps = sorted(actor["name"] for actor in actors if actor["namespace"] == _NAMESPACE)
            share = part(self._room, sweeps.index(self._name), len(sweeps), self._keeps_one)
            self._found = min(share, self._most) if len(sweeps) > 1 else self._most
            self._asked = time.monotonic()
        return self._found


class _Here:
    """Says that a sweep is running by being there."""


def part(room: int, place: int, sweeps: int, keeps_one: bool) -> int:
    """Trials that the sweep at a place (from 0, the oldest) may run; what does not divide goes to the oldest.

    Where one trial fills the cluster, the younger sweeps wait, unless idle actors let theirs in.
    """
    if sweeps == 1:
        return room
    share = room // sweeps + (place < room % sweeps)
    return max(1, share - 1) if keeps_one else share
