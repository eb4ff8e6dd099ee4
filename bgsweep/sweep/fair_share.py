"""Fair shares of one cluster between sweeps, which come and go while others run."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.tune.search import ConcurrencyLimiter, Searcher

from bgsweep.distributed.demand import Demand
from bgsweep.distributed.resources import nodes
from bgsweep.distributed.trial_board import BoardReader, SweepBoard, Wish
from bgsweep.errors import UserError

_log = logging.getLogger(__name__)

_NAMESPACE = "bgsweep"
_ASK_EVERY = 1.0  # seconds
_SLACK = 1e-6


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
    """This sweep's share of the trials that the cluster can run; a context manager.

    A thread follows the cluster and the other sweeps, also while Tune asks for no proposal. It lets an autoscaler see
    the trials that the sweep could run besides its share. The others know a sweep by a named actor, which Ray ends
    together with the sweep's driver, however that ends.

    Args:
        name: of the sweep.
        room: gives the number of this sweep's trials that the whole cluster can run at a time, which may grow.
        most: the user's limit of trials at a time, if any.
        demand: requests for nodes; None where the cluster does not grow.
        check: called when nodes have come; raises UserError if the sweep cannot run on them.

    Attributes:
        refused: what `check` has raised, for which the search must end; empty without.
    """

    def __init__(
        self,
        name: str,
        room: Callable[[], int],
        most: int | None,
        demand: Demand | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._room, self._most, self._demand, self._check = room, most, demand, check
        self._nodes, self.refused = len(nodes()), ""
        self._left: Callable[[], int] | None = None
        self._name = f"{time.time():018.6f} {name}"  # the oldest first
        self.board = (self._name, _NAMESPACE)
        here: Any = ray.remote(num_cpus=0, max_restarts=-1)(SweepBoard)  # its node may die
        self._actor = here.options(name=self._name, namespace=_NAMESPACE).remote()
        ray.get(self._actor.__ray_ready__.remote())
        self.trials = BoardReader(self._actor)
        self._found = 1
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="fair-share", daemon=True)

    def __enter__(self) -> "FairShare":
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if ray.is_initialized():
            ray.kill(self._actor)
            if self._demand:
                self._demand.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune pickles its searcher into its own state file; a share lives in this process only."""
        return int, ()

    def __call__(self) -> int:
        return self._found

    def begin(self, left: Callable[[], int]) -> None:
        """Request nodes from now on; ``left`` gives the trials that have not ended, whatever they wait for."""
        self._left = left

    def _follow(self) -> None:
        while not self._ended.wait(_ASK_EVERY):
            try:
                self._look()
            except Exception as error:  # Ray restarts the head's services, or disconnects: the last share holds
                _log.debug("share not known: %s", error)

    def _look(self) -> None:
        there = len(nodes())
        if there > self._nodes and not self.refused:
            try:
                self._check()
            except UserError as error:
                self.refused = str(error)
        self._nodes = there
        left = None if self._left is None else max(1, self._left())
        own = Wish(min(_limit(left), _limit(self._most)), self._room())
        self._actor.tell.remote(own)
        wishes = self._wishes(own)
        names = sorted(wishes)
        self._found = shares([wishes[name] for name in names])[names.index(self._name)]
        if self._demand and left is not None:
            self._demand.ask(0 if self.refused else max(0, own.wanted - self._found), there)

    def _wishes(self, own: Wish) -> dict[str, Wish]:
        """All sweeps' wishes by name; one that does not answer is taken to want as much as there is."""
        actors = ray.util.list_named_actors(all_namespaces=True)
        names = {actor["name"] for actor in actors if actor["namespace"] == _NAMESPACE} - {self._name}
        found = {self._name: own}
        for name in names:
            wish: Any = None
            try:
                wish = ray.get(ray.get_actor(name, _NAMESPACE).wish.remote(), timeout=_ASK_EVERY)
            except ValueError:  # it has just ended
                continue
            except (ray.exceptions.RayError, AttributeError):
                pass
            found[name] = wish or Wish(own.room, own.room)
        return found


def shares(wishes: Sequence[Wish]) -> list[int]:
    """Trials that each of several sweeps may run, the oldest first.

    Each trial goes to the sweep that has the smallest part of the cluster, of equal ones the oldest, until all have
    what they want or nothing fits. If one trial fills the cluster, the younger sweeps wait until it ends.
    """
    given = [0] * len(wishes)
    used = 0.0
    while True:
        open_to = [
            index
            for index, wish in enumerate(wishes)
            if given[index] < wish.wanted and used + 1 / wish.room <= 1 + _SLACK
        ]
        if not open_to:
            return given
        least = min(open_to, key=lambda index: (given[index] / wishes[index].room, index))
        given[least] += 1
        used += 1 / wishes[least].room


def _limit(trials: int | None) -> int:
    return sys.maxsize if trials is None else trials
