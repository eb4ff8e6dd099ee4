"""ImageNet-C (Hendrycks & Dietterich 2019), as downloaded or made on the fly: accuracy under corruption, and mCE."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bgsweep.config import Preprocessing
from bgsweep.data import Image
from bgsweep.errors import UserError
from bgsweep.evaluation.classifier import classifier, known_labels, logits_of, require_classifier
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets.corruptions import CORRUPTIONS, as_published, corrupt
from bgsweep.evaluation.datasets.downloads import DOWNLOADS, path_of
from bgsweep.evaluation.datasets.imagenet import label_of, wnids
from bgsweep.evaluation.datasets.listing import (
    Listing,
    See,
    as_it_is,
    class_folders,
    in_folders,
    preprocessing_words,
    read_rgb,
    square,
)
from bgsweep.evaluation.evaluator import Evaluator, PerImageMetric, Yields, share
from bgsweep.evaluation.evaluators.imagenet_variants import labelled_validation
from bgsweep.seeding import Draw, rng_key

SEVERITIES = range(1, 6)
ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""Means over the severities, as published with the set; other orders of this list go about and give wrong mCEs."""


Part = tuple[Listing, See]
"""Images of one corruption and severity, and how they are seen."""

_FROST = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
SIDE = 224


def corruptions(context: EvalContext) -> Evaluator:
    """Top-1 accuracy under each corruption over all severities, and `imagenet_c_mce`.

    mCE is the mean over the 15 corruptions of the error divided by AlexNet's: 1 is AlexNet, less is better. The four
    corruptions for validation are not in it. Without `sets.imagenet_c` the images are made of the validation set.
    """
    require_classifier(context)
    made = context.config.sets.imagenet_c is None and context.config.sets.frost is not None
    known = known_labels(context)
    parts = _made(context) if made else _downloaded(path_of(context.config.sets, "imagenet_c"), known)

    def measure() -> Yields:
        weighted, of = [], []
        # Numbers of the images, by class folder and file: the same in all corruptions.
        numbers: dict[tuple[str, str], int] = {}
        for name, severities in parts.items():
            # Features of all corruptions of ImageNet would take 40 GB of disk.
            every = (logits_of(context, one, see, on_disk=False) for one, see in severities)
            predicted = torch.cat([logits.argmax(dim=1) for logits in every])
            labels = torch.from_numpy(np.concatenate([one.labels for one, _ in severities]))
            files = [(path.parent.name, path.name) for one, _ in severities for path in one.paths]
            images = np.array([numbers.setdefault(file, len(numbers)) for file in files])
            found = share(f"imagenet_c/{name}_top1", predicted == labels)
            yield found.by_image(images)
            if name in ALEXNET_ERRORS:
                weighted.append((1 - found.hits) / (len(found.hits) * len(ALEXNET_ERRORS) * ALEXNET_ERRORS[name]))
                of.append(images)
        errors = np.concatenate(weighted)
        metric = PerImageMetric("imagenet_c_mce", errors * len(errors), np.ones(len(errors)))
        yield metric.by_image(np.concatenate(of))

    def protocol() -> dict[str, Any]:
        how = "none: images as they are"
        if made:
            seen = preprocessing_words(context.config.preprocessing)
            how = f"{seen}, corrupted, through JPEG of quality 85 as published"
        return {
            "preprocessing": how,
            "corruptions": f"{len(parts)}, {'made on the fly' if made else 'as downloaded'}",
            "classifier": classifier(context)[1],
            "prediction": f"arg-max over {1000 if known is None else len(known)} classes",
            "mce": "mean over 15 corruptions of (error over five severities / AlexNet's)",
            "images": sum(len(one.paths) for severities in parts.values() for one, _ in severities),
        } | ({"seed": context.config.corruptions.seed} if made else {})

    return Evaluator(measure, protocol, [one for severities in parts.values() for one, _ in severities])


def _downloaded(root: Path, known: npt.NDArray[np.int64] | None) -> dict[str, list[Part]]:
    """The published images of the known classes (None: all); corruptions for validation only where they lie there."""
    found: dict[str, list[Part]] = {}
    for name in CORRUPTIONS:
        if name not in ALEXNET_ERRORS and not (root / name).is_dir():
            continue
        for severity in SEVERITIES:
            folder = root / name / str(severity)
            if not folder.is_dir():
                raise UserError(f"{folder}: no such folder; expected: {DOWNLOADS['imagenet_c'].tree}")
            some = [] if known is None else [wnids()[label] for label in known.tolist()]
            folders = class_folders(folder, 1000, DOWNLOADS["imagenet_c"].tree, some)
            labels = [label_of()[path.name] for path in folders if path.name in label_of()]
            if len(labels) != len(folders):
                raise UserError(f"{folder}: class folders that are no wnids, like n01440764; unpack the set again")
            listing = in_folders(f"{name}/{severity}", folders, labels)
            listing = listing if known is None else listing.where(np.isin(listing.labels, known))
            found.setdefault(name, []).append((listing, as_it_is))
    return found


def _made(context: EvalContext) -> dict[str, list[Part]]:
    """All 19 corruptions of the validation set, or of the part of it that the file asks for."""
    settings, preprocessing = context.config.corruptions, context.config.preprocessing
    if preprocessing.crop != SIDE:
        raise UserError(f"preprocessing.crop: corruptions are defined for images of {SIDE} px; set it to {SIDE}")
    frost = _frost_images(path_of(context.config.sets, "frost"))
    whole = labelled_validation(context)
    part = whole if settings.images is None else whole.spread(settings.images)
    return {
        name: [
            (
                Listing(f"{name}/{severity}", part.paths, part.labels),
                partial(
                    _corrupted,
                    seen=preprocessing,
                    name=name,
                    severity=severity,
                    seed=settings.seed,
                    frost=frost,
                ),
            )
            for severity in SEVERITIES
        ]
        for name in CORRUPTIONS
    }


def _corrupted(path: Path, seen: Preprocessing, name: str, severity: int, seed: int, frost: Sequence[Image]) -> Image:
    number = len(SEVERITIES) * list(CORRUPTIONS).index(name) + severity
    draws = np.random.default_rng(rng_key(seed, 0, path.name, Draw.CORRUPTION, number))
    return as_published(corrupt(square(read_rgb(path), seen), name, severity, draws, frost))


def _frost_images(root: Path) -> list[Image]:
    absent = [name for name in _FROST if not (root / name).is_file()]
    if absent:
        raise UserError(f"sets.frost: {root / absent[0]} is missing; expected there: {', '.join(_FROST)}")
    found = [as_it_is(root / name) for name in _FROST]
    for name, image in zip(_FROST, found, strict=True):
        if min(image.shape[:2]) <= SIDE:
            raise UserError(f"{root / name}: smaller than {SIDE + 1} px; take the published images as they are")
    return found


EVALUATORS: dict[str, Callable[[EvalContext], Evaluator]] = {"imagenet_c": corruptions}
