"""The augmentation policy that a sweep has found, as a file that can be used without bgsweep."""

import json
from pathlib import Path
from typing import Any

from bgsweep.augment.pipeline import LARGE_VIEWS, ViewPipeline
from bgsweep.config import Experiment
from bgsweep.errors import UserError
from bgsweep.storage.uri import Uri
from bgsweep.sweep.journal import read_records
from bgsweep.sweep.manifest import find_sweep
from bgsweep.sweep.selection import winner
from bgsweep.sweep.store import local_store
from bgsweep.sweep.trial import trial_file

FORMAT = "bgsweep augmentation policy 1"


def policy(name: str, store: Uri, out: Path, trial: str | None = None) -> dict[str, Any]:
    """Write the policy of a sweep's best trial, or of the one that is named.

    Returns:
        ``sweep``, ``trial`` and ``policy``, the file's path.

    Raises:
        UserError: there is no such sweep or trial, none was completed, or the file cannot be written.
    """
    with local_store(store, name, "state") as local:
        folder, manifest = find_sweep(name, local)
        records = read_records(folder)
    tree = manifest["file"]
    if trial is not None and trial not in records:
        raise UserError(f"{name}: no trial {trial}; it has {', '.join(records) or 'none yet'}")
    if trial is None:
        best = winner(records, trial_file(tree, {}).search)
        if best is None:
            raise UserError(f"{name}: no trial ran to its end yet; name one by --trial")
        trial = best.id
    record = records[trial]
    experiment = trial_file(tree, record.params).experiment
    found = {"format": FORMAT, "sweep": name, "trial": trial, "metrics": record.metrics, **described(experiment)}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}; name another by --out") from error
    return {"sweep": name, "trial": trial, "policy": str(out)}


def described(experiment: Experiment) -> dict[str, Any]:
    """An experiment's augmentations as plain values.

    ``views`` holds, for each view, its crop, background and colours (of `views.albumentations`: each transform as
    `to_dict` writes it), with the background's probabilities in the first epoch; ``extra`` the transforms of other
    packages, if there are any; ``background`` the whole section, schedules included, of which ``epochs`` is the length.
    """
    pipeline = ViewPipeline(experiment.views, experiment.background, experiment.training.epochs)
    views = []
    for number, each in enumerate(pipeline.policy()["views"]):
        crop, flip, *colors = each["transform"]["transforms"]
        kept = {key: crop[key] for key in ("size", "scale", "ratio", "interpolation", "remove", "random")}
        rest: dict[str, Any] = {"albumentations": colors}
        if experiment.views.albumentations is None:
            photometric = ("jitter", "jitter_p", "gray", "blur", "blur_sigma", "solarize", "color")
            rest = {key: colors[0][key] for key in photometric}
        views.append({"small": number >= LARGE_VIEWS, **kept, "flip": flip["p"], **rest})
    section = experiment.background.model_dump(mode="json", exclude={"most_kept"})
    found = {"epochs": experiment.training.epochs, "views": views, "background": section}
    extra = [each.model_dump(mode="json") for each in experiment.views.extra]
    return found | ({"extra": extra} if extra else {})
