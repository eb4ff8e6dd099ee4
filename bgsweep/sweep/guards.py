"""Guards in a sweep's driver against trials that hang and a disk that is full."""

import errno
import math
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray
from ray.tune.experiment import Trial

from bgsweep.distributed.trial_board import Beat
from bgsweep.errors import UserError
from bgsweep.sweep.searcher import trial_name

_RESERVE = 64 * 2**20  # bytes
_SHORTEST, _BEFORE_FIRST_STEP, _UNHEARD = 900.0, 7200.0, 60.0  # seconds
_WAITING = 120.0  # seconds; a trial that waits for nodes says so every 30 s
_TIMES = 10


def check_room(folder: Path, checkpoint: int, trials: int) -> None:
    """Raise UserError if one checkpoint of so many bytes for each trial does not fit on the disk."""
    above = next(each for each in (folder, *folder.parents) if each.exists())
    free, needed = shutil.disk_usage(above).free, checkpoint * trials + _RESERVE
    if needed > free:
        raise UserError(
            f"{folder}: the checkpoints of {trials} trials, {checkpoint / 2**20:.0f} MiB each, do not fit into the "
            f"{free / 2**30:.1f} GiB that are free; make room, name a --store on a larger disk, or lower search.trials"
        )


class DiskGuard:
    """Detects low disk space while the journal can still be written.

    Attributes:
        full: the reason in one line; empty while there is enough space.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.full = ""

    def look(self) -> None:
        # At each of Tune's steps; a journal that cannot be written loses results that cost hours.
        free = shutil.disk_usage(self._folder).free
        if free < _RESERVE:
            self.full = f"{self._folder}: {free / 2**20:.0f} MiB are free, too little to go on"

    def learn(self, error: str) -> None:
        """Look for a full disk in a trial's error: its checkpoint may need more than the reserve."""
        if any(os.strerror(code) in error for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)):
            self.full = f"{self._folder}: {error}"


@dataclass
class _Watched:
    """A running trial: when it last moved on (`time.monotonic`), and its last sign of life since it was started."""

    moved: float
    seen: int = 0
    beat: Beat | None = None


class HangGuard:
    """Kills the actors of trials that make no progress; Tune restarts them like trials that died.

    Progress is a step, a batch of an evaluation, a finished epoch or a report, and a wait for nodes that is told.

    Args:
        minutes: the longest time without progress; None: any; `auto`: ten times the longest pause of any of the sweep's
            trials so far, at least 15 minutes, and two hours before a trial's first step, which may have to wait for
            copies of images and for compilation.
    """

    def __init__(self, minutes: float | Literal["auto"] | None) -> None:
        self._minutes = math.inf if minutes is None else minutes
        self._watched: dict[str, _Watched] = {}
        self._longest = 0.0
        self._looked = time.monotonic()
        self._reasons: dict[str, str] = {}

    def started(self, name: str) -> None:
        """A trial's process is about to begin."""
        seen = self._watched[name].seen if name in self._watched else 0
        self._watched[name] = _Watched(time.monotonic(), seen)

    def moved(self, name: str) -> None:
        """A trial has reported."""
        self._watched[name].moved = time.monotonic()

    def look(self, trials: Iterable[Any], beats: Mapping[str, Beat]) -> None:
        """Take note of signs of life, and end the trials without any."""
        now = time.monotonic()
        if now - self._looked > _UNHEARD:  # the driver or the board has been away, and not the trials
            for watched in self._watched.values():
                watched.moved += now - self._looked
        self._looked = now
        for name, beat in beats.items():
            self._longest = max(self._longest, beat.longest or 0.0)
            if (found := self._watched.get(name)) is not None and found.seen != beat.count:
                found.moved, found.seen, found.beat = now, beat.count, beat
        for trial in trials:
            name = trial_name(trial)
            if trial.status == Trial.RUNNING and name not in self._reasons and name in self._watched:
                self._end(name, trial, now)

    def _end(self, name: str, trial: Any, now: float) -> None:
        watched = self._watched[name]
        stepped = watched.beat is not None and watched.beat.longest is not None
        limit, measured = self._limit(stepped)
        if watched.beat is not None and watched.beat.waiting:
            limit = max(limit, _WAITING)
        if now - watched.moved <= limit:
            return
        where = watched.beat.where if watched.beat else "its start"
        self._reasons[name] = (
            f"hangs: no progress for {limit / 60:.3g} minutes after {where}{measured}; if a single step can take that "
            "long, raise search.hang_minutes"
        )
        ray.kill(trial.temporary_state.ray_actor)

    def _limit(self, stepped: bool) -> tuple[float, str]:
        """The limit in seconds, and what it comes from."""
        if not isinstance(self._minutes, str):
            return 60 * self._minutes, ""
        if not stepped:
            return _BEFORE_FIRST_STEP, ""
        return max(_SHORTEST, _TIMES * self._longest), f" (the longest pause before: {self._longest:.3g} s)"

    def reason(self, name: str) -> str | None:
        """The reason of a trial's failure if its actor was killed here."""
        return self._reasons.pop(name, None)
