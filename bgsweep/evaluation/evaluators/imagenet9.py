"""ImageNet-9 in its release's layout (Xiao et al. 2020): eight variants with BG-Gap, and the challenge.

The images go to the network as they are, only as floats (ToTensor); its normalisation is its own. The arg-max over
all 1000 classes is mapped to one of nine; a class that belongs to none of them is wrong. A classifier of the nine
classes themselves needs no mapping (`--in9` in the authors' code): the model's own, or a linear probe where the user's
images are those of ImageNet-9 or IN-9L.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bgsweep.data import Image
from bgsweep.errors import UserError
from bgsweep.evaluation.classifier import classifier, logits_of, own_head, require_classifier, user_head
from bgsweep.evaluation.contact_sheet import side_by_side
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets.downloads import path_of
from bgsweep.evaluation.datasets.listing import Listing, as_it_is, in_folders
from bgsweep.evaluation.datasets.on_demand import MadeOnDemand
from bgsweep.evaluation.evaluator import Evaluator, Yields, share
from bgsweep.evaluation.evaluators.backgrounds_challenge import BLOCK, Cutout, kept_backgrounds, robust
from bgsweep.evaluation.frozen_model import Head

RELEASED = ("original", "only_bg_b", "only_bg_t", "no_fg", "only_fg", "mixed_same", "mixed_rand", "mixed_next")
MASKS = "fg_mask"


def imagenet9(context: EvalContext) -> Evaluator:
    """Accuracy on the eight variants, and BG-Gap = Mixed-Same - Mixed-Rand."""
    root, judge = _opened(context)
    listings = [variant(root, name, judge.mapping) for name in RELEASED]

    def measure() -> Yields:
        found = {}
        for name, listing in zip(RELEASED, listings, strict=True):
            logits = logits_of(context, listing, as_it_is, head=judge.head())
            predicted = judge.mapping[logits.argmax(dim=1).numpy()]
            found[name] = share(name, predicted == listing.labels)
            yield found[name]
        same, rand = found["mixed_same"], found["mixed_rand"]
        if len(same.hits) == len(rand.hits):
            yield same.minus(rand, "bg_gap")

    counts = {one.name: len(one.paths) for one in listings}
    return Evaluator(measure, lambda: judge.words() | {"images": counts}, listings)


def challenge(context: EvalContext) -> Evaluator:
    """`challenge`: the share of foregrounds that every background of Only-BG-T leaves in their class."""
    root, judge = _opened(context)
    mapping = judge.mapping
    fronts, behind = variant(root, "original", mapping), variant(root, "only_bg_t", mapping)
    masks = [root / MASKS / "val" / path.parent.name / f"{path.stem}.npy" for path in fronts.paths]
    for path in masks:
        if not path.exists():
            raise UserError(f"{path}: no such mask; unpack backgrounds_challenge_data.tar.gz whole")

    def measure() -> Yields:
        tries = len(fronts.paths) * len(behind.paths)
        parts = [(fronts[one], masks[one]) for one in context.slices(len(fronts.paths), BLOCK, tries)]
        task = partial(_hold, behind=behind, head=judge.head(), mapping=mapping)
        yield share("challenge", np.concatenate(list(context.each(task, parts, tries))))

    tried = {"foregrounds": len(fronts.paths), "backgrounds_for_each": len(behind.paths)}
    return Evaluator(measure, lambda: judge.words() | tried, [fronts, behind])


def _hold(
    context: EvalContext,
    part: tuple[Listing, Sequence[Path]],
    behind: Listing,
    head: Head,
    mapping: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """True for the foregrounds that are classified rightly before all backgrounds."""
    fronts, masks = part

    def classify(images: Image) -> npt.NDArray[np.int64]:
        with torch.no_grad():
            logits = head(context.model.encode(torch.from_numpy(images)))
        predicted: npt.NDArray[np.int64] = mapping[logits.argmax(dim=1).numpy()]
        return predicted

    def backgrounds() -> MadeOnDemand:
        return kept_backgrounds(len(behind.paths), lambda number: as_it_is(behind.paths[number]))

    return robust(
        lambda number: cut_out(as_it_is(fronts.paths[number]), masks[number]),
        fronts.labels,
        context.once("backgrounds of imagenet9", backgrounds),
        classify,
        context.config.evaluate.batch_size,
    )


def release_sheet(listings: Sequence[Listing], accuracy: Mapping[str, float], rows: int = 4) -> Image:
    """A contact sheet: foregrounds spread over the classes a row each, a variant a column with its accuracy."""
    columns = [[as_it_is(path) for path in one.spread(rows).paths] for one in listings]
    return side_by_side(zip(*columns, strict=False), [one.name for one in listings], accuracy)


def read_mapping(path: Path) -> npt.NDArray[np.int64]:
    """`in_to_in9.json` as an array of 1000: for each class of ImageNet the class it belongs to, or -1.

    Raises:
        UserError: the file is something else.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return np.array([int(tree[str(label)]) for label in range(1000)], np.int64)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: no JSON object with the keys 0 to 999, each a class or -1; use the published in_to_in9.json"
        ) from error


def variant(root: Path, name: str, mapping: npt.NDArray[np.int64]) -> Listing:
    """The images of one variant, labelled in the order of the class folders' names.

    Raises:
        UserError: it is missing, or has other classes than the mapping.
    """
    folder = root / name / "val"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; unpack backgrounds_challenge_data.tar.gz whole")
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) != mapping.max() + 1:
        raise UserError(
            f"{folder}: {len(classes)} class folders, but the mapping has {mapping.max() + 1}; unpack the set again"
        )
    return in_folders(name, classes, range(len(classes)))


def cut_out(image: Image, path: Path) -> Cutout:
    """A foreground by its released mask, whose entries are 1 on it and 0 beside it.

    Raises:
        UserError: the mask is damaged or of another size.
    """
    try:
        mask = np.load(path) > 0
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not a NumPy array; unpack the set again") from error
    if mask.shape != image.shape[:2]:
        raise UserError(f"{path}: a mask of shape {mask.shape}, its image has {image.shape[:2]}; unpack the set again")
    return np.where(mask[:, :, None], image, 0), np.where(mask, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class _Judge:
    """A classifier of the nine classes: after an arg-max over all its outputs, `mapping` gives the class, or -1."""

    mapping: npt.NDArray[np.int64]
    classifier: Callable[[], tuple[Head, str]]
    prediction: str

    def head(self) -> Head:
        return self.classifier()[0]

    def words(self) -> dict[str, Any]:
        return {
            "preprocessing": "none: images as they are, in [0, 1]; normalised by the model",
            "classifier": self.classifier()[1],
            "prediction": self.prediction,
        }


def _opened(context: EvalContext) -> tuple[Path, _Judge]:
    root = path_of(context.config.sets, "imagenet9")
    names = sorted(path.name for path in (root / "original" / "val").glob("[!.]*"))
    own, splits = own_head(context, len(names)), context.splits
    probed = own_head(context) is None and splits is not None and list(splits.train.classes) == names
    if names and (own is not None or probed):
        nine: Callable[[], tuple[Head, str]] = partial(user_head, context)
        if own is not None:
            head = own
            nine = lambda: (head, "the model's own")  # noqa: E731
        return root, _Judge(np.arange(len(names)), nine, f"arg-max over {len(names)} classes")
    require_classifier(context, whole=True)
    mapping = read_mapping(path_of(context.config.sets, "in_to_in9"))
    how = "arg-max over all 1000 classes, mapped by in_to_in9.json; -1 is wrong"
    return root, _Judge(mapping, lambda: classifier(context), how)


EVALUATORS: dict[str, Callable[[EvalContext], Evaluator]] = {
    "imagenet9": imagenet9,
    "imagenet9_challenge": challenge,
}
