"""Saliency without training: minimum barrier distance with a background model (MBD+, Zhang et al. 2015).

A pixel belongs to the background if a path from it to the image's border crosses no large differences of colour.
"""

from collections.abc import Callable
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from bgsweep.images.compositing import Image, Mask
from bgsweep.masks.grabcut import shrink, stretch

Planes = npt.NDArray[np.floating[Any]]

# The paper's constants: passes over the image, share of it that is border, contrast of the last step.
_PASSES, _BORDER, _CONTRAST = 3, 0.1, 10.0
_TURNS: tuple[Callable[[Planes], Planes], ...] = (
    lambda array: array,
    lambda array: array[::-1],
    lambda array: array.swapaxes(0, 1),
    lambda array: array.swapaxes(0, 1)[::-1],
)


def mbd_saliency(image: Image, side: int = 200) -> Mask:
    """Saliency of each pixel, by minimum barrier distance.

    Args:
        image: RGB, uint8.
        side: longer side in pixels at which it works.

    Returns:
        Height x width of the image, 0 to 255; zero everywhere if nothing stands out.
    """
    small = shrink(image, side)
    lab = cast(Planes, cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB))
    barrier: Planes = stretch(barrier_distance(lab).sum(axis=2))
    barrier = barrier + stretch(_unlike_border(lab))
    smooth = _smoothed(stretch(barrier).astype(np.float32))
    height, width = smooth.shape
    rows, columns = (np.abs(np.linspace(-0.5, 0.5, length))[:, None] for length in (height, width))
    centred = stretch(smooth * (1 - np.hypot(rows, columns.T)))
    level = np.where(centred > 0, 1 / (1 + np.exp(-_CONTRAST * (centred - 0.5))), 0)
    full = cv2.resize(stretch(level), (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    return cast(Mask, np.rint(full * 255).astype(np.uint8))


def barrier_distance(planes: Planes) -> Planes:
    """Per channel: the smallest range of values (highest minus lowest) along a path to the border.

    Found by sweeps down, up, right and left. Each sweep takes a whole line at a time, from the three nearest pixels of
    the line before, in place of the paper's raster scan: that can be written in NumPy, which a scan pixel by pixel
    cannot.

    Args:
        planes: height x width x channels.
    """
    distance = np.full(planes.shape, np.inf, np.float32)
    distance[[0, -1]] = distance[:, [0, -1]] = 0
    highest, lowest = planes.copy(), planes.copy()
    for _ in range(_PASSES):
        for turn in _TURNS:
            _sweep(*(turn(array) for array in (planes, distance, highest, lowest)))
    return distance


def _sweep(planes: Planes, distance: Planes, highest: Planes, lowest: Planes) -> None:
    for line in range(1, len(planes)):
        for shift in (0, 1, -1):
            here, there = _neighbours(planes.shape[1], shift)
            own = planes[line, here]
            high, low = np.maximum(highest[line - 1, there], own), np.minimum(lowest[line - 1, there], own)
            better = high - low < distance[line, here]
            for array, found in ((distance, high - low), (highest, high), (lowest, low)):
                np.copyto(array[line, here], found, where=better)


def _neighbours(length: int, shift: int) -> tuple[slice, slice]:
    """Slices of a line and of the line before it, which pair pixels that lie `shift` pixels apart."""
    return slice(max(0, -shift), length - max(0, shift)), slice(max(0, shift), length - max(0, -shift))


def _unlike_border(lab: Planes) -> Planes:
    """Distance of each pixel's colour from those of the sides, without the farthest side, which may be foreground."""
    height, width = lab.shape[:2]
    rows, columns = max(1, round(_BORDER * height)), max(1, round(_BORDER * width))
    sides = (lab[:rows], lab[-rows:], lab[:, :columns], lab[:, -columns:])
    maps = [stretch(_mahalanobis(lab, side.reshape(-1, 3))) for side in sides]
    return cast(Planes, (np.sum(maps, axis=0) - np.max(maps, axis=0)).astype(np.float32))


def _mahalanobis(lab: Planes, colors: Planes) -> Planes:
    covariance = np.cov(colors.T) + np.eye(3)  # the identity keeps it invertible for a side of one colour
    apart = lab - colors.mean(axis=0)
    return cast(Planes, np.sqrt(np.einsum("yxi,ij,yxj->yx", apart, np.linalg.inv(covariance), apart)))


def _smoothed(level: Planes) -> Planes:
    """Morphological opening and closing; the kernel grows with the amount of foreground, as in the paper."""
    size = 2 * round(0.02 * float(np.sqrt(level.mean())) * max(level.shape)) + 1
    kernel = np.ones((size, size), np.uint8)
    opened = cv2.morphologyEx(level, cv2.MORPH_OPEN, kernel)
    return cast(Planes, cv2.morphologyEx(opened, cv2.MORPH_CLOSE, kernel))
