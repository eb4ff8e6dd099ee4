"""Parts of ImageNet-C's corruptions: kernels, zooms, plasma, and pixels that change places."""

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import zoom

from bgsweep.data import Image

Values = npt.NDArray[Any]


def disk(radius: int, alias_blur: float) -> Values:
    """A blurred disk of weights that sum to about 1; at least 17 x 17."""
    reach = max(8, radius)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    full = (rows**2 + columns**2 <= radius**2).astype(np.float32)
    side = 3 if radius <= 8 else 5
    return np.asarray(cv2.GaussianBlur(full / full.sum(), (side, side), sigmaX=alias_blur))


def motion_blurred(layer: Values, radius: int, sigma: float, degrees: float) -> Values:
    """ImageMagick's motion blur: each pixel is the mean, weighted by half a Gaussian, of those in one direction."""
    count = 2 * radius + 1
    weights = np.exp(-(np.arange(count) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    across, along = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    kernel = np.zeros((2 * count + 1, 2 * count + 1))
    for step, weight in enumerate(weights):
        kernel[count + math.ceil(step * across - 0.5), count + math.ceil(step * along - 0.5)] += weight
    return np.asarray(cv2.filter2D(layer, -1, kernel, borderType=cv2.BORDER_REPLICATE))


def clipped_zoom(layer: Values, factor: float) -> Values:
    """The middle of a layer (H, W) or (H, W, C) enlarged to the layer's own size."""
    height, width = layer.shape[:2]
    rows, columns = math.ceil(height / factor), math.ceil(width / factor)
    top, left = (height - rows) // 2, (width - columns) // 2
    middle = layer[top : top + rows, left : left + columns]
    large = zoom(middle, (factor, factor, 1)[: layer.ndim], order=1)
    top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
    return np.asarray(large[top : top + height, left : left + width])


def plasma(side: int, decay: float, draws: np.random.Generator) -> Values:
    """Clouds in [0, 1], side x side (a power of two), by the diamond-square algorithm on a torus.

    Each round halves the grid's step, and divides by `decay` the square root of the noise that it adds.
    """
    heights = np.zeros((side, side))
    step, wobble = side, 100.0

    def settled(sums: Values) -> Values:
        return sums / 4 + wobble * draws.uniform(-wobble, wobble, sums.shape)

    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        heights[half::step, half::step] = settled(pairs + np.roll(pairs, -1, axis=1))
        centres = heights[half::step, half::step]
        above_and_below = centres + np.roll(centres, 1, axis=0)
        heights[::step, half::step] = settled(above_and_below + corners + np.roll(corners, -1, axis=1))
        left_and_right = centres + np.roll(centres, 1, axis=1)
        heights[half::step, ::step] = settled(left_and_right + corners + np.roll(corners, -1, axis=0))
        step, wobble = half, wobble / decay
    heights -= heights.min()
    return np.asarray(heights / heights.max())


def shuffled_nearby(image: Image, reach: int, draws: np.random.Generator) -> Image:
    """From the bottom right to the top left, each pixel takes over the value of one at most `reach` away.

    The published code means to swap the two but does not: both end with the second one's value. A value may thus be
    handed on many times; the chains of who takes from whom are followed for all pixels at once.
    """
    height, width = image.shape[:2]
    rows, columns = (np.arange(size - reach, reach, -1) for size in (height, width))
    shifts = draws.integers(-reach, reach, size=(len(rows) * len(columns), 2))
    here = (rows[:, None] * width + columns).ravel()
    there = here + shifts[:, 1] * width + shifts[:, 0]
    pixels = height * width
    # Numbers below `pixels` are values before this round, those from `pixels` on after it.
    after = np.zeros(pixels, bool)
    after[here] = True
    source = np.arange(2 * pixels)
    source[pixels:] -= pixels
    source[pixels + here] = there + pixels * (after[there] & (there > here))
    while (source[pixels:] >= pixels).any():
        source = source[source]
    return image.reshape(pixels, -1)[source[pixels:]].reshape(image.shape)
