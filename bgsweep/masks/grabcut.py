"""GrabCut (Rother et al. 2004), from a saliency map or a rectangle, and the scaling that saliency needs."""

from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from bgsweep.images.compositing import Image, Mask

Floats = npt.NDArray[np.float64]

# Where foreground and background have the same colours, GrabCut runs away: a result that has less than this in common
# (intersection over union) with what it started from is not used.
_LEAST_KEPT = 0.2


def grabcut(image: Image, saliency: Floats, iterations: int = 2, side: int = 256) -> Mask:
    """A foreground with sharp edges: GrabCut started from a saliency map. The same every time.

    Args:
        image: RGB, uint8.
        saliency: of the image's size, 0 to 1.
        iterations: of GrabCut.
        side: longer side in pixels at which it works; the mask is scaled back.

    Returns:
        Height x width, 0 to 255, soft only along edges that were scaled; empty where the map is.
    """
    small = shrink(image, side)
    level = stretch(cv2.resize(saliency, (small.shape[1], small.shape[0]), interpolation=cv2.INTER_AREA))
    start = level > otsu(level)
    guess = np.where(start, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    if level.any():  # GrabCut needs both kinds
        _cut(small, guess, None, iterations, cv2.GC_INIT_WITH_MASK)
    found = _foreground(guess)
    lost = np.count_nonzero(found & start) < _LEAST_KEPT * np.count_nonzero(found | start)
    return _at_size(start if lost else found, image)


def grabcut_rectangle(image: Image, margin: float = 0.06, iterations: int = 3, side: int = 160) -> Mask:
    """GrabCut told only that the image's rim is background. The same every time.

    Args:
        image: RGB, uint8.
        margin: width of that rim as a share of each side.
        iterations: of GrabCut.
        side: longer side in pixels at which it works; the mask is scaled back.

    Returns:
        Height x width, 0 to 255; empty where the image is of one colour.
    """
    small = shrink(image, side)
    guess = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
    if np.ptp(small, axis=(0, 1)).any():
        height, width = small.shape[:2]
        top, left = max(1, round(margin * height)), max(1, round(margin * width))
        _cut(small, guess, (left, top, width - 2 * left, height - 2 * top), iterations, cv2.GC_INIT_WITH_RECT)
    return _at_size(_foreground(guess), image)


def _cut(image: Image, guess: Mask, rectangle: Any, iterations: int, mode: int) -> None:
    """Run GrabCut; its verdicts replace the guess."""
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(image, guess, rectangle, *models, iterations, mode)


def _foreground(verdicts: Mask) -> npt.NDArray[np.bool_]:
    return (verdicts & 1).astype(bool)  # GC_FGD and GC_PR_FGD are the odd ones


def _at_size(foreground: npt.NDArray[np.bool_], image: Image) -> Mask:
    levels = np.where(foreground, np.uint8(255), np.uint8(0))
    return cast(Mask, cv2.resize(levels, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR))


def shrink(image: Image, side: int, least: int = 8) -> Image:
    """The image with its longer side at most `side` and its shorter at least `least` pixels."""
    zoom = min(1.0, side / max(image.shape[:2]))
    height, width = (max(least, round(length * zoom)) for length in image.shape[:2])
    if (height, width) == image.shape[:2]:
        return image
    return cast(Image, cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))


def stretch(values: npt.NDArray[Any]) -> Floats:
    """Values brought to 0..1; all zero where they do not differ by more than rounding."""
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-6 * max(1.0, abs(high)):
        return np.zeros(values.shape)
    return (values.astype(np.float64) - low) / (high - low)


def otsu(values: Floats) -> float:
    """The threshold in 0..1 that parts values best into two kinds."""
    levels = np.rint(values * 255).astype(np.uint8).reshape(-1, 1)
    return float(cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)[0]) / 255
