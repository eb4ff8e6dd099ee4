"""Checkpoints within an epoch that trials are asked for: their node will be taken away, or the driver leaves."""

import time
from collections.abc import Collection, Mapping
from typing import Any

from ray.tune.experiment import Trial

from bgsweep.distributed.trial_board import Beat, draining_nodes
from bgsweep.stopping import Asked, Request, nothing_asked
from bgsweep.sweep.searcher import trial_name

_PATIENCE = 25.0  # seconds; a cloud that takes a machine back waits 30 s after its SIGTERM


class EarlyCheckpoints:
    """Asks trials for checkpoints; once the driver was asked to leave, says when it may.

    Args:
        drains: look for nodes that will be taken away; Ray Train's workers do so themselves.

    Attributes:
        requests: number of the latest checkpoint that each trial is asked for.
        asked: gives the request to the driver itself.
    """

    def __init__(self, drains: bool) -> None:
        self.asked: Asked = nothing_asked
        self.requests: dict[str, int] = {}
        self._drains = drains
        self._waiting: set[str] = set()
        self._told: set[tuple[str, str]] = set()
        self._until: float | None = None

    @property
    def leave(self) -> bool:
        """True once the driver was asked to leave, and all trials have written their checkpoints or had the time to."""
        return self._until is not None and (not self._waiting or time.monotonic() > self._until)

    def look(self, trials: Collection[Any], beats: Mapping[str, Beat]) -> None:
        """Ask the trials on nodes that will be taken away, or, if the driver was asked to leave, all that train."""
        training = {trial_name(trial) for trial in trials if trial.status == Trial.RUNNING}
        training &= {name for name, beat in beats.items() if beat.longest is not None}
        self._waiting &= training
        if self._until is None and self.asked() is Request.LEAVE:
            self._until = time.monotonic() + _PATIENCE
            self._ask(training)
        draining = draining_nodes() if self._drains and training else ()
        for name in sorted(training):
            if (beats[name].node in draining) and (told := (name, beats[name].node)) not in self._told:
                self._told.add(told)
                self._ask({name})

    def written(self, name: str) -> None:
        """A trial has written a checkpoint."""
        self._waiting.discard(name)

    def _ask(self, names: Collection[str]) -> None:
        self._waiting.update(names)
        for name in names:
            self.requests[name] = self.requests.get(name, 0) + 1
