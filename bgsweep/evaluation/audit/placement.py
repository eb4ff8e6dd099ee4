"""ForAug's measures (Nauen et al. 2025) of background robustness, and of bias towards the centre and towards a size."""

from functools import partial

import cv2
import numpy as np
import numpy.typing as npt

from bgsweep.data import Image, Mask
from bgsweep.evaluation.audit.measure import Found, Measure, thumbnail
from bgsweep.evaluation.audit.subject import Subject
from bgsweep.evaluation.evaluator import PerImageMetric

_CELLS = [(row, column) for row in range(3) for column in range(3)]
_CENTRE = (1, 1)
_CORNERS = [cell for cell in _CELLS if 1 not in cell]
_SIDES = [cell for cell in _CELLS if cell.count(1) == 1]
SIZES = (0.25, 0.5, 1.0, 1.5)
"""Sides of the foreground, 1 being its own."""
_FULL = SIZES.index(1.0)


def background_robustness(other: npt.NDArray[np.float64], same: npt.NDArray[np.float64]) -> PerImageMetric:
    """Accuracy on backgrounds of other classes over that on backgrounds of the same class; 1 where these are alike."""
    return PerImageMetric("background_robustness", other, same)


def centre_bias(hits: npt.NDArray[np.float64]) -> PerImageMetric:
    """1 - (worst corner + worst side) / (2 centre), of accuracies with the foreground in each cell of a 3 x 3 grid.

    0 where the position does not matter, 1 where a foreground is recognised in the centre alone.

    Args:
        hits: N x 3 x 3.
    """
    worst = (min(cells, key=lambda cell: hits[:, *cell].mean()) for cells in (_CORNERS, _SIDES))
    corner, side = (hits[:, *cell] for cell in worst)
    centre = hits[:, *_CENTRE]
    return PerImageMetric("centre_bias", centre - (corner + side) / 2, centre)


def size_bias(hits: npt.NDArray[np.float64]) -> PerImageMetric:
    """1 - worst / own, of accuracies with the foreground at each of `SIZES` (N x S) and at its own size."""
    worst, own = hits[:, int(hits.mean(axis=0).argmin())], hits[:, _FULL]
    return PerImageMetric("size_bias", own - worst, own)


def placed(cutout: Image, shows: Mask, behind: Image, centre: tuple[float, float], scale: float) -> Image:
    """A foreground, scaled about the middle of its bounding box, with that middle at a point of a background.

    Args:
        cutout, shows: as `VariantSet.cutout` gives them.
        behind: of the same size.
        centre: row and column, as shares of the sides.
        scale: of the foreground's sides.
    """
    size = behind.shape[0]
    left, top, width, height = cv2.boundingRect(np.asarray(shows < 128, np.uint8))
    y, x = top + height / 2, left + width / 2
    matrix = np.array([[scale, 0, centre[1] * size - scale * x], [0, scale, centre[0] * size - scale * y]])
    flag = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    # Reduced first where it shrinks: a warp does not average, and its alias would differ from size to size.
    if scale < 1:
        side = max(1, round(size * scale))
        cutout, shows = (cv2.resize(each, (side, side), interpolation=flag) for each in (cutout, shows))  # type: ignore[assignment]
        matrix[:, :2] *= size / side
    front = cv2.warpAffine(cutout, matrix, (size, size), flags=cv2.INTER_LINEAR)
    uncovered = cv2.warpAffine(
        shows, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=255
    )
    shown = cv2.multiply(behind, cv2.cvtColor(uncovered, cv2.COLOR_GRAY2RGB), scale=1 / 255)
    return np.asarray(cv2.add(front, shown), np.uint8)


def placement(subject: Subject) -> Found:
    """`centre_bias`, `size_bias` and, with classes, `background_robustness`."""
    part = subject.part
    cells, sizes = np.empty((len(part), 3, 3)), np.empty((len(part), len(SIZES)))
    for row, column in _CELLS:
        make = partial(_in_cell, subject, row, column)
        cells[:, row, column] = subject.hits(subject.encoded(f"cell-{row}-{column}", make, len(part)), part)
    for column, scale in enumerate(SIZES):
        make = partial(_of_size, subject, scale)
        sizes[:, column] = subject.hits(subject.encoded(f"size-{scale:g}", make, len(part)), part)
    values = [centre_bias(cells), size_bias(sizes)]
    if subject.labelled:
        found = [subject.hits(subject.variant(name), subject.usable) for name in ("mixed_rand", "mixed_same")]
        values.insert(0, background_robustness(*found))
    details = {
        "cells": cells.mean(axis=0).tolist(),
        "sizes": dict(zip(map(str, SIZES), sizes.mean(axis=0).tolist(), strict=True)),
        "score": subject.score,
        "examples": [thumbnail(_in_cell(subject, *cell, 0)) for cell in ((0, 0), _CENTRE)]
        + [thumbnail(_of_size(subject, scale, 0)) for scale in (SIZES[0], SIZES[-1])],
    }
    return Found(values, details)


def _in_cell(subject: Subject, row: int, column: int, number: int) -> Image:
    index = int(subject.part[number])
    cutout, shows = subject.variants.cutout(index)
    _, _, width, height = cv2.boundingRect(np.asarray(shows < 128, np.uint8))
    scale = subject.size / 3 / max(1, width, height)
    behind = subject.variants.behind("mixed_same", index)
    return placed(cutout, shows, behind, ((2 * row + 1) / 6, (2 * column + 1) / 6), scale)


def _of_size(subject: Subject, scale: float, number: int) -> Image:
    index = int(subject.part[number])
    behind = subject.variants.behind("mixed_same", index)
    return placed(*subject.variants.cutout(index), behind, (0.5, 0.5), scale)


MEASURE = Measure(
    "placement",
    "Background robustness, centre bias and size bias",
    "ForAug's measures (Nauen et al. 2025). Background robustness is 1 where backgrounds of other classes cost "
    "nothing; centre bias and size bias are 0 where position and size of the foreground do not matter. Foregrounds "
    "stand before another image's background of their class: one cell of a 3 x 3 grid high or wide for the centre "
    "bias, in the middle for the size bias.",
    placement,
)
