"""Search for a checkpoint that a run can go on from, among those of runs that differ only in how they were run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bgsweep.config import Experiment
from bgsweep.config.resuming import Changes, changes, moved, other_images
from bgsweep.errors import UserError
from bgsweep.models.safe_load import load_safely
from bgsweep.storage.atomic import write_whole
from bgsweep.storage.layout import CHECKPOINT_FILE, RUN_FILE
from bgsweep.training.trainer import why_not_resumable


@dataclass(frozen=True)
class Found:
    """A checkpoint of a run that differs only in how it was run.

    Attributes:
        folder: the checkpoint's.
        position: the epochs and steps that it has trained.
        changes: the settings that differ.
        other_images: the splits that have other images; empty where images have not moved.
        recorded: False for a run of a version that did not record its images.
    """

    folder: Path
    position: tuple[int, int]
    changes: Changes
    other_images: tuple[str, ...] = ()
    recorded: bool = True

    @property
    def fits(self) -> bool:
        """True if the run can go on from this checkpoint."""
        return not self.other_images and (self.recorded or not moved(self.changes))


def record_run(folder: Path, experiment: Experiment, images: Mapping[str, str]) -> None:
    """Write a run's experiment, and the fingerprints of its images by split, beside its checkpoints.

    So a search of all runs opens the checkpoints of those alone that fit: 1,000 runs take 0.3 s, where to open each of
    them takes 13 ms.
    """
    about = {"digest": experiment.digest, "experiment": experiment.model_dump(mode="json"), "images": dict(images)}
    write_whole(folder / RUN_FILE, json.dumps(about).encode() + b"\n")


def recorded_images(folder: Path) -> dict[str, str] | None:
    """The fingerprints that `record_run` has written into a run's folder."""
    found = _about(folder)
    return None if found is None else dict(found["images"])


def furthest(runs: Path, experiment: Experiment, images: Mapping[str, str]) -> Found | None:
    """The checkpoint below a folder of runs that has trained an experiment furthest; None if there is none.

    Checkpoints that fit come first, and among equals the experiment's own. Files that cannot be read are passed over.

    Args:
        images: fingerprints of the experiment's images now.
    """
    found = [each for run in runs.glob("*") for each in _of_run(run, experiment, images)]
    return max(found, key=lambda each: (each.fits, each.position, not each.changes), default=None)


def checkpoints(run: Path) -> list[Path]:
    """The files of the checkpoints of a run, of one worker or of several."""
    return [*run.glob(CHECKPOINT_FILE), *run.glob(f"checkpoint_*/{CHECKPOINT_FILE}")]


def _of_run(run: Path, experiment: Experiment, images: Mapping[str, str]) -> list[Found]:
    about = _about(run)
    try:
        if about is not None and not _resumable(about, experiment):
            return []
    except (LookupError, ValueError, TypeError):
        return []
    before = None if about is None else about["images"]
    return [each for path in checkpoints(run) if (each := _look(path, experiment, images, before)) is not None]


def _about(run: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((run / RUN_FILE).read_bytes())
        return found if found.keys() >= {"digest", "experiment", "images"} else None
    except (OSError, ValueError, AttributeError):
        return None


def _resumable(state: dict[str, Any], experiment: Experiment) -> bool:
    return state["digest"] == experiment.digest or not why_not_resumable(state, experiment)


def _look(
    path: Path, experiment: Experiment, images: Mapping[str, str], before: Mapping[str, str] | None
) -> Found | None:
    try:
        state = load_safely(path, mapped=True)
        if not _resumable(state, experiment):
            return None
        differing = changes(Experiment.model_validate(state["experiment"]), experiment)
        position = state["epoch"], state.get("step", 0)
    except (UserError, LookupError, ValueError, TypeError):
        return None
    other = () if before is None or not moved(differing) else other_images(before, images)
    return Found(path.parent, position, differing, other, before is not None)
