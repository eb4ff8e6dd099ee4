"""What follows the last trial: judging champion and baseline on unseen photographs, and registering the champion."""

from pathlib import Path
from typing import Any

import ray

from bgsweep.config import SweepFile
from bgsweep.sweep.journal import TrialRecord
from bgsweep.sweep.trial import dump, trial_file
from bgsweep.tracking import Tracker


def crown(
    file: SweepFile, tracker: Tracker, parent: str, best: TrialRecord, baseline: TrialRecord | None
) -> dict[str, Any]:
    """Judge the best trial, the baseline and an untrained encoder alike; register the best; log it all.

    The work that needs torch is done by a Ray task, so that the driver stays small.
    """
    candidates = {"best": best} | ({"baseline": baseline} if baseline else {})
    checkpoints = {name: str(record.checkpoint) for name, record in candidates.items()}
    values = {name: record.params for name, record in candidates.items()}
    task = ray.remote(num_cpus=file.search.cpus, num_gpus=file.search.gpus)(_crown)
    verdict: dict[str, Any] = ray.get(task.remote(dump(file), tracker.address, parent, checkpoints, values))
    for name, record in candidates.items():
        verdict[name] = {"trial": record.id, "params": record.params, "epochs": record.epochs, **verdict[name]}
    return verdict
