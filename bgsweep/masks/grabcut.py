"""GrabCut (Rother et al. 2004) from a saliency map or a rectangle, and scaling of images and maps."""

from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from bgsweep.images.compositing import Image, Mask

Floats = npt.NDArray[np.float64]

# If foreground and background have the same colours, GrabCut drifts away from the object. A result whose intersection
# over union with its start is less than this is not used.
_LEAST_KEPT = 0.2


def grabcut(image: Image, saliency: Floats, iterations: int = 2, side: int = 256) -> Mask:
    """A mask with sharp edges, by GrabCut started from a saliency map; deterministic.

    Args:
        image: RGB, uint8.
        saliency: height x width of the image, 0 to 1.
        iterations: number of GrabCut's iterations.
        side: longer side in pixels at which it works; the mask is scaled back.

    Returns:
        Height x width, 0 to 255, soft only along edges that were scaled; empty if the map is zero everywhere.
    """
    small = shrink(image, side)
    level = stretch(cv2.resize(saliency, (small.shape[1], small.shape[0]), interpolation=cv2.INTER_AREA))
    start = level > otsu(level)
    guess = np.where(start, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    if level.any():  # GrabCut raises an error if there is no foreground to start from
        _cut(small, guess, None, iterations, cv2.GC_INIT_WITH_MASK)
    found = _foreground(guess)
    lost = np.count_nonzero(found & start) < _LEAST_KEPT * np.count_nonzero(found | start)
    return _at_size(start if lost else found, image)


def grabcut_rectangle(image: Image, margin: float = 0.06, iterations: int = 3, side: int = 160) -> Mask:
    """A mask by GrabCut that starts from the image's border as background; deterministic.

    Args:
        image: RGB, uint8.
        margin: width of the border as a share of each side.
        iterations: number of GrabCut's iterations.
        side: longer side in pixels at which it works; the mask is scaled back.

    Returns:
        Height x width, 0 to 255; empty if the image has one colour only.
    """
    small = shrink(image, side)
    guess = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
    if np.ptp(small, axis=(0, 1)).any():
        height, width = small.shape[:2]
        top, left = max(1, round(margin * height)), max(1, round(margin * width))
        _cut(small, guess, (left, top, width - 2 * left, height - 2 * top), iterations, cv2.GC_INIT_WITH_RECT)
    return _at_size(_foreground(guess), image)


def _cut(image: Image, guess: Mask, rectangle: Any, iterations: int, mode: int) -> None:
    """Run GrabCut, which writes its labels into the guess."""
    cv2.setRNGSeed(0)  # its colour models start from k-means with random centres
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(image, guess, rectangle, *models, iterations, mode)


def _foreground(labels: Mask) -> npt.NDArray[np.bool_]:
    return (labels & 1).astype(bool)  # GC_FGD and GC_PR_FGD are odd


def _at_size(foreground: npt.NDArray[np.bool_], image: Image) -> Mask:
    levels = np.where(foreground, np.uint8(255), np.uint8(0))
    return cast(Mask, cv2.resize(levels, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR))


def shrink(image: Image, side: int, least: int = 8) -> Image:
    """The image scaled down until its longer side is at most `side`; the shorter is at least `least` pixels."""
    zoom = min(1.0, side / max(image.shape[:2]))
    height, width = (max(least, round(length * zoom)) for length in image.shape[:2])
    if (height, width) == image.shape[:2]:
        return image
    return cast(Image, cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))


def stretch(values: npt.NDArray[Any]) -> Floats:
    """Values scaled to 0..1; all zero if they differ by rounding only."""
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-6 * max(1.0, abs(high)):
        return np.zeros(values.shape)
    return (values.astype(np.float64) - low) / (high - low)


def otsu(values: Floats) -> float:
    """Otsu's threshold in 0..1, which separates values into two classes of least variance."""
    levels = np.rint(values * 255).astype(np.uint8).reshape(-1, 1)
    return float(cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)[0]) / 255
