"""Scores of masks against true masks, with the metrics of salient object detection."""

import csv
import io
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bgsweep.errors import UnreadableImage, UserError
from bgsweep.images.compositing import Mask, binarize
from bgsweep.images.decoding import read_gray
from bgsweep.storage.tree import Tree

BETA_SQUARED = 0.3
_WORST = 10

Curve = npt.NDArray[np.float64]


class Score(NamedTuple):
    """Scores of one mask.

    Attributes:
        f_beta: F-beta at each threshold 0..255; pixels at or above the threshold are foreground.
        mae: mean absolute difference, 0 to 1.
        iou: intersection over union of both at 128; 1 where both are empty.
    """

    f_beta: Curve
    mae: float
    iou: float


def score(mask: Mask, truth: Mask, beta_squared: float = BETA_SQUARED) -> Score:
    """Compare a soft mask with the truth, whose foreground is above 127.

    F is 1 at thresholds at which the mask is empty, if the truth is empty too.
    """
    wanted = truth > 127
    true_positives = _at_least(mask[wanted])
    predicted = _at_least(mask.ravel())
    below = beta_squared * np.count_nonzero(wanted) + predicted
    f_beta = np.divide((1 + beta_squared) * true_positives, below, out=np.ones(256), where=below > 0)
    found = binarize(mask) > 0
    union = np.count_nonzero(found | wanted)
    iou = np.count_nonzero(found & wanted) / union if union else 1.0
    mae = float(np.abs(mask / 255 - wanted).mean())
    return Score(f_beta, mae, iou)


def score_trees(masks: Tree, truth: Tree) -> tuple[dict[str, Any], str]:
    """Compare all masks with the true masks of the same names (PNG).

    Returns:
        ``max_f_beta`` and ``mean_f_beta`` (of the curve that is the mean over images), ``mae``, ``iou``, ``images``,
        ``without_truth``, ``without_mask``, ``worst`` (names and IoU), and ``unreadable`` (a line for each damaged
        pair); and a CSV table with a line for each image.

    Raises:
        UserError: no mask has a true mask, no pair can be read, or the sizes of a pair differ.
    """
    predicted, true = (_pngs(tree) for tree in (masks, truth))
    names = sorted(predicted & true)
    if not names:
        raise UserError(
            f"{masks.uri}: none of its {len(predicted)} masks has a PNG of the same name in {truth.uri}; "
            "name two trees of the same images"
        )
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["mask", "max_f_beta", "mean_f_beta", "mae", "iou"])
    curve = np.zeros(256)
    scored, absolute, overlaps, unreadable = [], [], [], []
    for name in names:
        try:
            one = _score_of(masks, truth, name)
        except UnreadableImage as error:
            unreadable.append(str(error))
            continue
        scored.append(name)
        curve += one.f_beta
        absolute.append(one.mae)
        overlaps.append(one.iou)
        writer.writerow([name, *(f"{value:.6f}" for value in (one.f_beta.max(), one.f_beta.mean(), one.mae, one.iou))])
    if not scored:
        raise UserError(f"none of the {len(names)} masks can be scored; {unreadable[0]}")
    curve /= len(scored)
    worst = np.argsort(overlaps, kind="stable")[:_WORST]
    return {
        "max_f_beta": float(curve.max()),
        "mean_f_beta": float(curve.mean()),
        "mae": float(np.mean(absolute)),
        "iou": float(np.mean(overlaps)),
        "images": len(scored),
        "without_truth": len(predicted - true),
        "without_mask": len(true - predicted),
        "worst": [{"mask": scored[index], "iou": float(overlaps[index])} for index in worst],
        "unreadable": unreadable,
    }, table.getvalue()


def read_mask(tree: Tree, name: str) -> Mask:
    """A mask of a tree; raises UnreadableImage if the file is damaged."""
    return read_gray(tree.read(name), f"{tree.uri}/{name}")


def _score_of(masks: Tree, truth: Tree, name: str) -> Score:
    mask, wanted = read_mask(masks, name), read_mask(truth, name)
    if mask.shape != wanted.shape:
        sizes = " and ".join(f"{shape[1]}x{shape[0]}" for shape in (mask.shape, wanted.shape))
        raise UserError(
            f"{name}: the mask in {masks.uri} and the one in {truth.uri} differ in size: {sizes}; "
            "make both for the same images"
        )
    return score(mask, wanted)


def _pngs(tree: Tree) -> set[str]:
    found = {name for name in tree.files() if name.lower().endswith(".png")}
    if not found:
        raise UserError(f"{tree.uri}: no such folder, or no masks in it; name a folder of PNGs")
    return found


def _at_least(levels: Mask) -> npt.NDArray[np.int64]:
    """Number of pixels at or above each of the 256 levels."""
    return np.bincount(levels, minlength=256)[::-1].cumsum()[::-1]
