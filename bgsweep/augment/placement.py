"""Where a foreground stands in front of a new background, and how sharp its edge is."""

import random
from typing import NamedTuple, cast

import cv2
import numpy as np

from bgsweep.images.compositing import Image, Mask, binarize


class Placement(NamedTuple):
    """A foreground's new size and place.

    Attributes:
        factor: what its sides are multiplied by; less where it would not fit into the view.
        down, right: 0 (at the top, left) to 1 (at the bottom, right); None where its middle stays where it is.
    """

    factor: float
    down: float | None = None
    right: float | None = None


def draw_placement(scale: float, order: int, generator: random.Random) -> Placement:
    """A factor log-uniform between 1 / `scale` and `scale`, and a place by the Bates distribution of an order.

    The mean of `order` uniform draws, for each axis (ForAug, Nauen et al. 2025): 1 is uniform, more are nearer the
    middle. With order 0 the foreground stays where it is.
    """
    factor = scale ** generator.uniform(-1, 1)
    if not order:
        return Placement(factor)
    down, right = (sum(generator.random() for _ in range(order)) / order for _ in range(2))
    return Placement(factor, down, right)


def place(view: Image, mask: Mask, placement: Placement) -> tuple[Image, Mask]:
    """A view and its foreground mask, moved so that the mask's foreground has another size and place.

    What was foreground at the view's edge is cut off there, and stays so. Pixels that come from outside the view are no
    foreground.
    """
    left, top, width, height = cv2.boundingRect(binarize(mask))
    rows, columns = mask.shape
    factor = min(placement.factor, rows / height, columns / width)
    new_top = _start(top + height / 2, height * factor, rows, placement.down)
    new_left = _start(left + width / 2, width * factor, columns, placement.right)
    # From the middle of the first pixel to that of the last; at factor 1 a shift by whole pixels, which is exact.
    middle = (factor - 1) / 2
    matrix = np.array([[factor, 0, new_left - left * factor + middle], [0, factor, new_top - top * factor + middle]])
    size = (columns, rows)
    moved = cv2.warpAffine(view, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cast(Image, moved), cast(Mask, cv2.warpAffine(mask, matrix, size, flags=cv2.INTER_LINEAR))


def _start(middle: float, length: float, room: int, share: float | None) -> int:
    """Where a foreground of a length begins: around its middle, or at a share of the room that is left."""
    free = max(0.0, room - length)
    return round(min(max(middle - length / 2, 0.0), free) if share is None else share * free)


def mix(image: Image, alpha: Mask, backdrop: Image) -> Image:
    """`alpha` parts of the image and 255 - `alpha` of the backdrop, rounded."""
    weight = alpha.astype(np.uint32)[..., None]
    return cast(Image, ((image * weight + backdrop * (255 - weight) + 127) // 255).astype(np.uint8))
