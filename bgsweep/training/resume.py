"""Search for a checkpoint that a run can go on from, among those of runs that differ only in how they were run."""

from dataclasses import dataclass
from pathlib import Path

from bgsweep.config import Experiment
from bgsweep.config.resuming import Changes, changes
from bgsweep.errors import UserError
from bgsweep.models.safe_load import load_safely
from bgsweep.storage.layout import CHECKPOINT_FILE
from bgsweep.training.trainer import why_not_resumable


@dataclass(frozen=True)
class Found:
    """A checkpoint's folder, the epochs and steps that it has trained, and the settings that differ."""

    folder: Path
    position: tuple[int, int]
    changes: Changes


def furthest(runs: Path, experiment: Experiment) -> Found | None:
    """The checkpoint below a folder of runs that has trained an experiment furthest; None if there is none.

    Among equals the experiment's own comes first. Files that cannot be read are passed over.
    """
    found = [each for run in runs.glob("*") for path in _files(run) if (each := _look(path, experiment))]
    return max(found, key=lambda each: (each.position, not each.changes), default=None)


def _files(run: Path) -> list[Path]:
    return [*run.glob(CHECKPOINT_FILE), *run.glob(f"checkpoint_*/{CHECKPOINT_FILE}")]


def _look(path: Path, experiment: Experiment) -> Found | None:
    try:
        state = load_safely(path, mapped=True)
        if state["digest"] != experiment.digest and why_not_resumable(state, experiment):
            return None
        before = Experiment.model_validate(state["experiment"])
        return Found(path.parent, (state["epoch"], state.get("step", 0)), changes(before, experiment))
    except (UserError, LookupError, ValueError, TypeError):
        return None
