"""What a sweep's driver looks out for: trials that hang, and a disk that is full."""

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
    """Refuse a sweep whose checkpoints do not fit on the disk; each trial keeps one, of ``checkpoint`` bytes.

    Raises:
        UserError: they do not.
    """
    above = next(each for each in (folder, *folder.parents) if each.exists())
    free, needed = shutil.disk_usage(above).free, checkpoint * trials + _RESERVE
    if needed > free:
        raise UserError(
            f"{folder}: the checkpoints of {trials} trials, {checkpoint / 2**20:.0f} MiB each, do not fit into the "
            f"{free / 2**30:.1f} GiB that are free; make room, name a --store on a larger disk, or lower search.trials"
        )


class DiskGuard:
    """Tells that a sweep's folder is full, early enough for its last words to be written.

    Attributes:
        full: why, in a line; empty while there is room.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.full = ""

    def look(self) -> None:
        free = shutil.disk_usage(self._folder).free
        if free < _RESERVE:
            self.full = f"{self._folder}: {free / 2**20:.0f} MiB are free, too little to go on"

    def learn(self, error: str) -> None:
        """From a trial's failure: its checkpoint may need more than what is left for others."""
        if any(os.strerror(code) in error for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)):
            self.full = f"{self._folder}: {error}"


class HangGuard:
    """Ends the actors of trials that have not moved for too long, as if they had died; Tune then does as it would.

    Args:
        minutes: time without a result after which a trial hangs; None: none ever does.
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
        """Why a trial that has just failed did, where it was ended here."""
        return self._reasons.pop(name, None)
