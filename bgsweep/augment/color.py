"""Colour jitter, grey, blur and solarise as one transform, in as few passes over the pixels as possible.

Drawing is kept apart from rendering: the draws of a view are a `ColorDraw`, a handful of numbers, which the CPU renders
here and `color_batched` renders on a device, a batch at a time.
"""

import itertools
import math
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Literal, NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt

from bgsweep.images.compositing import Image

Color = Literal["exact", "fast"]
Matrix = npt.NDArray[np.float64]

# torchvision's ColorJitter changes these in random order; luma has the weights of ITU-R 601, as in Pillow and
# torchvision.
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
_ORDERS = cast(list[tuple[int, int, int, int]], list(itertools.permutations(range(4))))
NEUTRAL = (1.0, 1.0, 1.0, 0.0)
LUMA = np.array([0.299, 0.587, 0.114])
HUE_LEVELS = 256
ROW = 11
# Sigma is rounded to steps too fine to see, so that a few hundred cached kernels serve all views.
_SIGMA_STEP = 1 / 128
_UNUSED_MEAN = np.zeros(4)
_UNCHANGED = np.eye(3, 4)


class ColorDraw(NamedTuple):
    """The photometric draws of one view.

    Attributes:
        order: the order in which brightness (0), contrast (1), saturation (2) and hue (3) are changed.
        factors: one for each of these four; the first three multiply, hue is a shift in turns. (1, 1, 1, 0) is neutral.
        gray: whether the view is converted to grey.
        sigma: standard deviation of the blur in pixels; 0 leaves the view sharp.
        solarize: whether values above 127 are inverted.
    """

    order: tuple[int, int, int, int]
    factors: tuple[float, float, float, float]
    gray: bool
    sigma: float
    solarize: bool

    def row(self) -> list[float]:
        """All attributes as `ROW` numbers, for `color_batched.render`."""
        return [*self.order, *self.factors, self.gray, self.sigma, self.solarize]


@dataclass(kw_only=True, eq=False, repr=False)
class Colors:
    """Colour jitter in random order, grey, Gaussian blur and solarise, in the order of MoCo-v2, BYOL and SwAV.

    Operations are torchvision's (`ColorJitter`, `Grayscale`, `GaussianBlur`, solarise at 128). With `color="exact"`
    each of them and the clipping after it is torchvision's within rounding: neighbours are fused only where nothing
    between them can clip, and the hue has 8 bits, as in torchvision's own transforms of Pillow images. With
    `color="fast"` jitter and grey are one matrix: values are clipped once, at the end, and the hue is turned about the
    grey axis of RGB instead of in HSV; and the blur's kernel ends at two sigma instead of three. The tests measure the
    error of both. A whole MoCo-v2 sample takes 2.1 ms with `exact` and 1.7 ms with `fast` (benchmarks/RESULTS.md).

    Attributes:
        jitter: brightness, contrast, saturation (factors from 1 - x to 1 + x, not below 0), hue (turns from -x to x).
        jitter_p: probability of the jitter.
        gray: probability of conversion to grey.
        blur: probability of the blur.
        blur_sigma: range of its standard deviation in pixels.
        solarize: probability of inverting values above 127.
        color: `exact` or `fast`.
        py_random: source of the draws.
    """

    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_p: float = 0.8
    gray: float = 0.2
    blur: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0
    color: Color = "exact"
    py_random: Random = field(default_factory=Random, init=False)

    def __post_init__(self) -> None:
        self._ranges = [(max(0.0, 1 - x), 1 + x) for x in self.jitter[:3]]

    def draw(self) -> ColorDraw:
        """Draw for one view.

        The number of draws is fixed, so that changing one probability leaves all other draws as they are.
        """
        uniform = self.py_random.random
        jitters, grays, blurs, solarizes = (uniform() < p for p in (self.jitter_p, self.gray, self.blur, self.solarize))
        order = _ORDERS[int(uniform() * len(_ORDERS))]
        factors = [low + uniform() * (high - low) for low, high in self._ranges]
        hue = (2 * uniform() - 1) * self.jitter[3]
        low, high = self.blur_sigma
        sigma = low + uniform() * (high - low)
        return ColorDraw(
            order,
            (factors[0], factors[1], factors[2], hue) if jitters else NEUTRAL,
            grays,
            sigma if blurs else 0.0,
            solarizes,
        )


def render(image: Image, photometry: ColorDraw, color: Color) -> Image:
    """Apply the draws of a view to it (height x width x RGB); freshly allocated."""
    canvas = _Canvas(image, clips=color == "exact")
    for operation in photometry.order:
        factor = photometry.factors[operation]
        # A neutral operation costs a pass over the pixels and may not change them.
        if factor == NEUTRAL[operation]:
            continue
        if operation == HUE and color == "exact":
            canvas.turn(factor)
        else:
            canvas.change(operation, factor)
    # A grey view stays one channel wide until the end: its blur and solarise cost a third.
    rendered = canvas.finish(photometry.gray)
    if photometry.sigma:
        rendered = blur(rendered, photometry.sigma, color)
    if photometry.solarize:
        # min(v, 255 - v) inverts exactly the values above 127.
        rendered = cast(Image, cv2.min(rendered, cv2.bitwise_not(rendered)))
    return cast(Image, cv2.cvtColor(rendered, cv2.COLOR_GRAY2RGB)) if rendered.ndim == 2 else rendered


class _Canvas:
    """An image with a pending affine map of its colours (3 x 4), so that neighbouring operations share one pass.

    With `clips` the map is applied before the next operation wherever it may have pushed values out of range.
    """

    def __init__(self, image: Image, clips: bool) -> None:
        self.image = image
        self.clips = clips
        self.pending: Matrix | None = None
        self.may_clip = False

    def change(self, operation: int, factor: float) -> None:
        if self.may_clip:
            self._apply_pending()
        # One pass for brightness, contrast and saturation takes 0.08 ms, ColorJitter's three 0.19 ms (224 x 224 px).
        matrix = _UNCHANGED if self.pending is None else self.pending
        # The mean commutes with an affine map, so that contrast needs no pass over the mapped pixels.
        mean = np.array([*cv2.mean(self.image)[:3], 1.0]) if operation == CONTRAST else _UNUSED_MEAN
        self.pending = extend(matrix, operation, factor, mean)
        # Blends with a factor of at most 1 stay between their two ends, so that they cannot clip.
        self.may_clip = self.clips and factor > 1

    def turn(self, hue: float) -> None:
        """Shift the hue in HSV."""
        self._apply_pending()
        # The _FULL conversions give the hue all 256 levels, so that uint8 addition wraps around as the hue does: 94
        # us for 224 x 224 px, where a look-up in the split channel takes 117 and Albumentations' own hue 192.
        hsv = cv2.cvtColor(self.image, cv2.COLOR_RGB2HSV_FULL)
        lines = hsv.reshape(len(hsv), -1)
        np.add(lines, _hue_pattern(round(hue * HUE_LEVELS) % HUE_LEVELS, hsv.shape[1]), out=lines)
        self.image = cast(Image, cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))

    def finish(self, gray: bool) -> Image:
        """The image with all operations applied, of one channel if `gray`, otherwise of three."""
        if gray and self.may_clip:
            self._apply_pending()
        if gray and self.pending is None:
            return cast(Image, cv2.cvtColor(self.image, cv2.COLOR_RGB2GRAY))
        if gray:
            return cast(Image, cv2.transform(self.image, (LUMA @ self.pending)[None].astype(np.float32)))
        fresh = self.pending is not None
        self._apply_pending()
        return self.image if fresh else self.image.copy()

    def _apply_pending(self) -> None:
        if self.pending is not None:
            self.image = cast(Image, cv2.transform(self.image, self.pending.astype(np.float32)))
            self.pending, self.may_clip = None, False


def extend(matrix: Matrix, operation: int, factor: float, mean: Matrix) -> Matrix:
    """An affine map of colours (3 x 4) with an operation after it.

    Each blend is factor * x + (1 - factor) * y, as in torchvision: y is black (brightness), the image's mean grey
    (contrast) or the pixel's own grey (saturation).

    Args:
        factor: of the blend; for hue the turn about the grey axis.
        mean: the mean colour (RGB and a 1) of the image that the map applies to; used by contrast only.
    """
    if operation == HUE:
        return _rotation(factor) @ matrix
    result = factor * matrix
    if operation == CONTRAST:
        result[:, 3] += (1 - factor) * (LUMA @ matrix @ mean)
    elif operation == SATURATION:
        result += (1 - factor) * (LUMA @ matrix)
    return result


def blur(image: Image, sigma: float, color: Color) -> Image:
    """Gaussian blur, borders mirrored; `image` is height x width, with or without RGB."""
    kernel = kernel_of(sigma, color)
    # sepFilter2D is about twice as fast as GaussianBlur, at the same error against a blur in floating point.
    return image if len(kernel) == 1 else cast(Image, cv2.sepFilter2D(image, -1, kernel, kernel))


def kernel_of(sigma: float, color: Color) -> npt.NDArray[np.float32]:
    """The weights of a Gaussian, cut off at three sigma (exact) or two (fast).

    Where a pixel's neighbours weigh less than half a grey level, the kernel is a single 1. Its length follows sigma: a
    fixed length of 23, as in published configurations, would take six times as long.
    """
    return _kernel(max(1, round(sigma / _SIGMA_STEP)), 3 if color == "exact" else 2)


@lru_cache(maxsize=4096)
def _kernel(steps: int, reach: int) -> npt.NDArray[np.float32]:
    sigma = steps * _SIGMA_STEP
    # Rounded up, so that `reach` sigmas are always covered.
    radius = math.ceil(reach * sigma)
    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    return (weights if weights[radius + 1] > 1 / 512 else np.ones(1)).astype(np.float32)


def _rotation(turns: float) -> Matrix:
    """Rotation about the grey axis of RGB; by a third of a turn it exchanges the channels, as a shift in HSV does."""
    angle = 2 * math.pi * turns
    diagonal, side, skew = (1 + 2 * math.cos(angle)) / 3, (1 - math.cos(angle)) / 3, math.sin(angle) / 3**0.5
    before, after = side - skew, side + skew
    return np.array([[diagonal, before, after], [after, diagonal, before], [before, after, diagonal]])


@lru_cache(maxsize=1024)
def _hue_pattern(shift: int, width: int) -> Image:
    return np.tile(np.array([shift, 0, 0], np.uint8), width)
