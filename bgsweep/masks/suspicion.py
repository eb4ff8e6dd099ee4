"""Suspicion that a mask is wrong, from a second mask of the same image and from the mask's own edge and pieces."""

from typing import NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt

from bgsweep.data.mask_kinds import HUGE, TINY
from bgsweep.images.compositing import Image, Mask, binarize, foreground_area
from bgsweep.masks.grabcut import shrink

Floats = npt.NDArray[np.float32]

# Masks are rated at this longer side, so that edges and specks count the same in small and large images.
_SIDE = 128
# Chosen on composites of photographic stamps; benchmarks/suspicion.py measures them on others. Agreement could have
# all the weight where the second method is good; the rest is for images that both methods get wrong.
_AGREEMENT, _EDGE, _WHOLE = 0.7, 0.15, 0.15
# Of masks that training leaves unaugmented, whatever speaks for them.
_LEAST_OF_EXTREME = 0.9

# Colours are compared in windows of this size on both sides of the edge.
_WINDOW = 7
_NOTICEABLE = 2.0  # distance in CIELAB below which colours look the same
# A piece is a part of the object, like one of two shoes, rather than a speck, from this share of the foreground on.
_PIECE = 0.1


class Suspicion(NamedTuple):
    """A mask's suspicion, 0 to 1, and the main reason for it in a word or two."""

    value: float
    reason: str


def suspicion(image: Image, mask: Mask, second: Mask | None) -> Suspicion:
    """Rate a mask: 1 minus a weighted mean of what speaks for it.

    Three things do, each from 0 to 1: the soft intersection over union with the second mask; the distance of the
    colours on both sides of the edge, against their spread there; and the share of the foreground in large pieces.

    Args:
        image: RGB.
        mask: of the image's size.
        second: of any size, soft or not; without one the other two count.
    """
    area = foreground_area(mask)
    if area == 0:
        return Suspicion(1.0, "empty")
    small = shrink(image, _SIDE)
    fitted = _fitted(mask, small)
    bits = binarize(fitted)
    pieces, whole = _pieces(bits)
    losses = [(_EDGE * (1 - _edge(small, bits)), "weak edge"), (_WHOLE * (1 - whole), f"{pieces} pieces")]
    if second is not None:
        agreement = _agreement(fitted, _fitted(second, small))
        losses.append((_AGREEMENT * (1 - agreement), f"agrees {100 * agreement:.0f} %"))
    value = sum(loss for loss, _ in losses) / (_EDGE + _WHOLE + (0 if second is None else _AGREEMENT))
    if area > HUGE or area < TINY:
        return Suspicion(
            max(value, _LEAST_OF_EXTREME), f"full {100 * area:.0f} %" if area > HUGE else f"tiny {100 * area:.1f} %"
        )
    return Suspicion(value, max(losses)[1])


def _fitted(mask: Mask, image: Image) -> Mask:
    return cast(Mask, cv2.resize(mask, image.shape[1::-1], interpolation=cv2.INTER_AREA))


def _agreement(mask: Mask, second: Mask) -> float:
    """Intersection over union of two soft masks; 1 if both are empty."""
    union = int(np.maximum(mask, second).sum(dtype=np.int64))
    return int(np.minimum(mask, second).sum(dtype=np.int64)) / union if union else 1.0


def _pieces(bits: Mask) -> tuple[int, float]:
    """Number of pieces of the foreground, and the share of it in large ones."""
    sizes = cv2.connectedComponentsWithStats(bits)[2][1:, cv2.CC_STAT_AREA]
    total = int(sizes.sum())
    return len(sizes), int(sizes[sizes >= _PIECE * total].sum()) / total if total else 0.0


def _edge(image: Image, bits: Mask) -> float:
    """Contrast along the mask's edge, 0 (none) to 1; 0.5 where colours differ across it as much as beside it."""
    edge = (bits > 0) & (cv2.erode(bits, np.ones((3, 3), np.uint8)) == 0)
    if not edge.any():
        return 0.0
    colors = cast(Floats, cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB))
    inner, inner_variance = _around(colors, bits > 0)
    outer, outer_variance = _around(colors, bits == 0)
    distance = np.linalg.norm(inner - outer, axis=2)[edge]
    spread = np.sqrt((inner_variance + outer_variance).sum(axis=2))[edge]
    ratio = float(np.mean(distance / (spread + _NOTICEABLE)))
    return ratio / (1 + ratio)


def _around(colors: Floats, part: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Mean and variance of the colours of one part of the image, in a window around each pixel."""

    def mean(values: Floats) -> Floats:
        weighted = cv2.blur(values * weight[..., None], (_WINDOW, _WINDOW), borderType=cv2.BORDER_CONSTANT)
        return cast(Floats, weighted / share[..., None])

    weight = part.astype(np.float32)
    share = cv2.blur(weight, (_WINDOW, _WINDOW), borderType=cv2.BORDER_CONSTANT) + np.float32(1e-6)
    means = mean(colors)
    return means, np.maximum(mean(colors * colors) - means * means, 0)
