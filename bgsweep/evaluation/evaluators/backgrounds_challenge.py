"""The backgrounds challenge (Xiao et al. 2020): a foreground counts only if no background changes its class."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from bgsweep.data import Image, Mask
from bgsweep.evaluation.datasets.on_demand import MadeOnDemand

Cutout = tuple[Image, Mask]
"""A foreground on black, and how much of the background shows at each pixel, 0 to 255."""
Classify = Callable[[Image], npt.NDArray[np.int64]]
"""From images (N, H, W, 3) to classes (N,)."""

_KEPT_BYTES = 512_000_000
BLOCK = 32
"""Foregrounds for a worker at a time: few, since how long a foreground takes depends on when it fails."""


def robust(
    cutouts: Callable[[int], Cutout],
    labels: npt.NDArray[np.int64],
    backgrounds: Sequence[Image],
    classify: Classify,
    batch_size: int,
) -> npt.NDArray[np.bool_]:
    """True for each foreground (N,) that is classified rightly in front of every background.

    Many foregrounds are tried at once, and each leaves at its first failure; the fewer are left, the more backgrounds
    each meets in a batch. The batch size does not change the result. As in the published
    protocol, the image itself need not be classified rightly.

    Args:
        cutouts: gives the foreground of a number.
        labels: their classes.
        backgrounds: images of the foregrounds' size, gone through in order.
        batch_size: composites that are classified at once.
    """
    survives = np.ones(len(labels), bool)
    for first in range(0, len(labels), batch_size):
        block = np.arange(first, min(first + batch_size, len(labels)))
        fronts, shows = (np.stack(part) for part in zip(*(cutouts(int(number)) for number in block), strict=True))
        start, left = 0, np.arange(len(block))
        while len(left) and start < len(backgrounds):
            behind = np.stack(backgrounds[start : start + max(1, batch_size // len(left))])
            start += len(behind)
            images = composites(fronts[left], shows[left], behind)
            predicted = classify(images.reshape(-1, *images.shape[2:])).reshape(len(left), len(behind))
            left = left[(predicted == labels[block[left], None]).all(axis=1)]
        survives[block] = False
        survives[block[left]] = True
    return survives


def composites(fronts: Image, shows: Mask, behind: Image) -> Image:
    """Every foreground (F, H, W, 3) before every background (B, H, W, 3): F x B x H x W x 3."""
    shown = (behind[None].astype(np.uint16) * shows[:, None, :, :, None] + 127) // 255
    images: Image = np.minimum(shown + fronts[:, None], 255).astype(np.uint8)
    return images


def kept_backgrounds(count: int, make: Callable[[int], Image]) -> MadeOnDemand:
    """Backgrounds that are made when they are asked for, as many of them kept as fit half a gigabyte."""
    return MadeOnDemand(count, make, max(1, _KEPT_BYTES // max(1, make(0).nbytes)) if count else 1)
