"""The crop window of RandomResizedCrop, drawn before any pixel is touched."""

import math
import random

from bgsweep.images.compositing import Rect

_TRIES = 10


def draw_window(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], generator: random.Random
) -> Rect:
    """The window of a RandomResizedCrop (Szegedy et al. 2015), drawn as torchvision does.

    Args:
        height, width: size of the image in pixels.
        scale: range of the window's share of the image's area, drawn uniformly.
        ratio: range of its width / height, drawn uniformly on a logarithmic scale.
        generator: source of the draws. After ten windows that do not fit, the largest central one whose ratio is in the
            range is taken.
    """
    area, logs = height * width, (math.log(ratio[0]), math.log(ratio[1]))
    for _ in range(_TRIES):
        target, aspect = area * generator.uniform(*scale), math.exp(generator.uniform(*logs))
        # In torchvision's order of draws and with its rounding, so that both have the same distribution of windows.
        columns, rows = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < columns <= width and 0 < rows <= height:
            top, left = int(generator.random() * (height - rows + 1)), int(generator.random() * (width - columns + 1))
            return Rect(top, left, top + rows, left + columns)
    rows, columns = min(height, max(1, round(width / ratio[0]))), min(width, max(1, round(height * ratio[1])))
    top, left = (height - rows) // 2, (width - columns) // 2
    return Rect(top, left, top + rows, left + columns)
