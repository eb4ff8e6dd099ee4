"""Shape bias on cue-conflict stimuli (Geirhos et al. 2019): an object's shape filled with another's texture."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bgsweep.errors import UserError
from bgsweep.evaluation.classifier import classifier, logits_of, require_classifier
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets.downloads import DOWNLOADS, path_of
from bgsweep.evaluation.datasets.listing import Listing, images_in, preprocessing_words
from bgsweep.evaluation.evaluator import Evaluator, PerImageMetric, Yields

# Labels of ImageNet that belong to each of the sixteen categories, as Geirhos et al. assign them.
_LABELS = {
    "airplane": "404",
    "bear": "294-297",
    "bicycle": "444 671",
    "bird": "8 10-16 18-20 22-24 80-83 87-96 98-100 127-133 135-145",
    "boat": "472 554 625 814 914",
    "bottle": "440 720 737 898-899 901 907",
    "car": "436 511 817",
    "cat": "281-286",
    "chair": "423 559 765 857",
    "clock": "409 530 892",
    "dog": "152-191 193-203 205-226 228-241 243-250 252-257 259 261-263 265-268",
    "elephant": "385-386",
    "keyboard": "508 878",
    "knife": "499",
    "oven": "766",
    "truck": "555 569 656 675 717 734 864 867",
}
_NAME = re.compile(r"([a-z]+)\d+-([a-z]+)\d+$")


def labels_of(category: str) -> list[int]:
    """ImageNet's labels of one of the sixteen categories."""
    spans = [span.partition("-") for span in _LABELS[category].split()]
    return [label for first, _, last in spans for label in range(int(first), int(last or first) + 1)]


CATEGORIES = {name: labels_of(name) for name in _LABELS}


def decisions(logits: Tensor) -> Tensor:
    """Categories (N,), by number in alphabetical order: the highest mean probability over a category's labels."""
    probabilities = logits.softmax(dim=1)
    means = [probabilities[:, labels].mean(dim=1) for labels in CATEGORIES.values()]
    return torch.stack(means, dim=1).argmax(dim=1)


def shape_bias(context: EvalContext) -> Evaluator:
    """`shape_bias`: of the decisions for the shape or for the texture the share for the shape, where the two differ.

    `shape_match` and `texture_match` are the shares of all such stimuli.
    """
    require_classifier(context, whole=True)
    listing, shapes, textures = stimuli(path_of(context.config.sets, "cue_conflict"))

    def measure() -> Yields:
        decided = decisions(logits_of(context, listing)).numpy()
        conflict = (shapes != textures).astype(np.float64)
        by_shape = (decided == shapes) * conflict
        by_texture = (decided == textures) * conflict
        # One image of an object is painted over with several textures.
        objects = np.array([path.stem.partition("-")[0] for path in listing.paths])
        for name, hits, counted in (
            ("shape_bias", by_shape, by_shape + by_texture),
            ("shape_match", by_shape, conflict),
            ("texture_match", by_texture, conflict),
        ):
            yield PerImageMetric(name, hits, counted).by_image(objects)

    def protocol() -> dict[str, Any]:
        return {
            "preprocessing": preprocessing_words(context.config.preprocessing),
            "classifier": classifier(context)[1],
            "prediction": "the category of the highest mean probability over its ImageNet classes, of 16",
            "stimuli": len(listing.paths),
            "conflicting": int((shapes != textures).sum()),
        }

    return Evaluator(measure, protocol, [listing])


def stimuli(root: Path) -> tuple[Listing, Any, Any]:
    """The stimuli with the numbers of their shapes' and their textures' categories.

    Raises:
        UserError: a folder or a file has a name that tells no category.
    """
    paths = [path for folder in sorted(root.iterdir()) if folder.is_dir() for path in images_in(folder)]
    if not paths:
        raise UserError(f"{root}: no stimuli in its folders; expected: {DOWNLOADS['cue_conflict'].tree}")
    numbers = {name: number for number, name in enumerate(CATEGORIES)}
    found = []
    for path in paths:
        name = _NAME.match(path.stem)
        if not name or name[1] not in numbers or name[2] not in numbers:
            raise UserError(f"{path}: not called SHAPE1-TEXTURE2, of {', '.join(CATEGORIES)}; unpack the set again")
        found.append((numbers[name[1]], numbers[name[2]]))
    shapes, textures = np.array(found, np.int64).T
    return Listing("cue_conflict", paths, shapes), shapes, textures


EVALUATORS: dict[str, Callable[[EvalContext], Evaluator]] = {"shape_bias": shape_bias}
