"""Guards in a sweep's driver against trials that hang and a disk that is full."""

import errno
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import ray
from ray.tune.experiment import Trial

from bgsweep.errors import UserError
from bgsweep.sweep.searcher import trial_name

_RESERVE = 64 * 2**20  # bytes


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


class HangGuard:
    """Kills the actors of trials that have not reported for too long; Tune restarts them like trials that died.

    Args:
        minutes: time without a result after which a trial is taken to hang; None: no trial ever is.
    """

    def __init__(self, minutes: float | None) -> None:
        self._minutes = math.inf if minutes is None else minutes
        self._moved: dict[str, float] = {}
        self._reasons: dict[str, str] = {}

    def moved(self, name: str) -> None:
        self._moved[name] = time.monotonic()

    def end(self, trials: list[Any]) -> None:
        for trial in trials:
            if trial.status != Trial.RUNNING or (name := trial_name(trial)) in self._reasons:
                continue
            if time.monotonic() - self._moved[name] > 60 * self._minutes:
                self._reasons[name] = (
                    f"hangs: no result for {self._minutes:g} minutes; if that is too short for evaluate.every epochs, "
                    "raise search.hang_minutes"
                )
                ray.kill(trial.temporary_state.ray_actor)

    def reason(self, name: str) -> str | None:
        """The reason of a trial's failure if its actor was killed here."""
        return self._reasons.pop(name, None)
