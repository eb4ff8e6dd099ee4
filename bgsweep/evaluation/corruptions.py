"""ImageNet-C (Hendrycks & Dietterich 2019), read as published: 15 corruptions of five severities, and mCE."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bgsweep.errors import UserError
from bgsweep.evaluation.examination import Examination
from bgsweep.evaluation.imagenet_classes import label_of
from bgsweep.evaluation.listing import Listing, as_it_is, class_folders, in_folders
from bgsweep.evaluation.needs import DOWNLOADS, place_of
from bgsweep.evaluation.prepared import Prepared
from bgsweep.evaluation.subject import Measured, Yields, share

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


def corruptions(exam: Examination) -> Prepared:
    """Top-1 accuracy under each corruption over all severities, and `imagenet_c_mce`.

    mCE is the mean over corruptions of the error divided by AlexNet's: 1 is AlexNet, less is better.
    """
    exam.check_classifier()
    root = place_of(exam.file.sets, "imagenet_c")
    listings: dict[str, list[Listing]] = {}
    for name in ALEXNET_ERRORS:
        for severity in SEVERITIES:
            folder = root / name / str(severity)
            if not folder.is_dir():
                raise UserError(f"{folder}: no such folder; expected: {DOWNLOADS['imagenet_c'].tree}")
            folders = class_folders(folder, 1000, DOWNLOADS["imagenet_c"].tree)
            labels = [label_of()[path.name] for path in folders if path.name in label_of()]
            if len(labels) != len(folders):
                raise UserError(f"{folder}: class folders are named by wnids, like n01440764")
            listings.setdefault(name, []).append(in_folders(f"{name}/{severity}", folders, labels))

    def measure() -> Yields:
        weighted = []
        for name, severities in listings.items():
            parts = [exam.logits(one, as_it_is).argmax(dim=1) == torch.from_numpy(one.labels) for one in severities]
            found = share(f"imagenet_c/{name}_top1", torch.cat(parts))
            yield found
            weighted.append((1 - found.hits) / (len(found.hits) * len(listings) * ALEXNET_ERRORS[name]))
        errors = np.concatenate(weighted)
        yield Measured("imagenet_c_mce", errors * len(errors), np.ones(len(errors)))

    def protocol() -> dict[str, Any]:
        return {
            "preprocessing": "none: pictures as they are",
            "classifier": exam.classifier[1],
            "prediction": "arg-max over 1000 classes",
            "mce": "mean over corruptions of (error over five severities / AlexNet's)",
            "pictures": sum(len(one.paths) for severities in listings.values() for one in severities),
        }

    return Prepared(measure, protocol)


EVALUATORS: dict[str, Callable[[Examination], Prepared]] = {"imagenet_c": corruptions}
