"""Signs of life of a sweep's trials, in an actor between them and the sweep's driver.

Neither side ever waits for the other: trials pass a `Beat` on every two seconds, and the driver looks once a second.
"""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray

_LOOK_EVERY = 1.0  # seconds


@dataclass(frozen=True)
class Beat:
    """The last sign of life of a trial.

    Attributes:
        count: another one for each beat.
        where: the trial's position in words, such as "epoch 3, step 41".
        longest: seconds of the longest pause between two signs of life so far; None before the first step.
        node: id of the node that the process is on.
        waiting: what the trial waits for; empty if it trains.
    """

    count: int
    where: str
    longest: float | None
    node: str
    waiting: str = ""


class TrialBoard:
    """The actor: the last beat of each trial, and the checkpoints that the driver asks of trials."""

    def __init__(self) -> None:
        self._beats: dict[str, Beat] = {}
        self._unread: dict[str, Beat] = {}
        self._requests: Mapping[str, int] = {}

    def beat(self, trial: str, where: str, longest: float | None, node: str, waiting: str = "") -> int:
        """Note a sign of life; give the number of the latest checkpoint that is asked of the trial, 0 for none."""
        before = self._beats.get(trial)
        self._beats[trial] = self._unread[trial] = Beat(
            (before.count if before else 0) + 1, where, longest, node, waiting
        )
        return self._requests.get(trial, 0)

    def exchange(self, requests: Mapping[str, int]) -> dict[str, Beat]:
        """Take over what the driver asks of trials; give the beats since the last time."""
        self._requests = requests
        found, self._unread = self._unread, {}
        return found


class Wish(NamedTuple):
    """A sweep's trials at a time.

    Attributes:
        wanted: those that it could run now, on a cluster large enough.
        room: those that the whole cluster could run if this sweep were alone.
    """

    wanted: int
    room: int


class SweepBoard(TrialBoard):
    """An actor whose existence says that a sweep is running, and on which its trials give signs of life."""

    def __init__(self) -> None:
        super().__init__()
        self._wish: Wish | None = None

    def tell(self, wish: Wish) -> None:
        self._wish = wish

    def wish(self) -> Wish | None:
        return self._wish


def draining_nodes() -> set[str]:
    """Ids of the nodes that will be taken away: `ray drain-node`, or a cloud's notice that the cluster passes on."""
    return set(ray._private.state.state.get_draining_nodes())  # as Ray Train's own watcher does


class BoardReader:
    """The driver's side of a `TrialBoard`.

    Args:
        actor: handle of the board.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._answer: Any = None
        self._asked = -_LOOK_EVERY
        self._beats: dict[str, Beat] = {}

    def look(self, requests: Mapping[str, int]) -> dict[str, Beat] | None:
        """All trials' last beats, if there is an answer to the last look; passes on the driver's requests."""
        found = None
        if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
            with contextlib.suppress(ray.exceptions.RayError):  # its node has died; Ray starts it again elsewhere
                self._beats |= ray.get(self._answer)
                found = self._beats
            self._answer = None
        now = time.monotonic()
        if self._answer is None and now - self._asked >= _LOOK_EVERY:
            self._asked = now
            self._answer = self._actor.exchange.remote(dict(requests))
        return found
