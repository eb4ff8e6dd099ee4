"""The 19 corruptions of ImageNet-C (Hendrycks & Dietterich 2019), each of five severities, made of images of 224 px.

Their constants are in pixels of such images. What they draw at random comes in the published order from the generator
that the caller gives, so that an image's corruption does not depend on what was corrupted before it.
"""

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
from scipy.ndimage import map_coordinates
from skimage.color import hsv2rgb, rgb2hsv
from skimage.filters import gaussian
from skimage.util import random_noise

from bgsweep.data import Image
from bgsweep.evaluation.datasets.corruption_parts import clipped_zoom, disk, motion_blurred, plasma, shuffled_nearby

Values = npt.NDArray[np.float64]
"""An image (H, W, 3) in [0, 1], or a layer (H, W) of one."""
Generator = np.random.Generator

_MUD, _WATER = np.array([63, 42, 20]) / 255, np.array([175, 238, 238]) / 255


def corrupt(image: Image, name: str, severity: int, draws: Generator, frost: Sequence[Image] = ()) -> Image:
    """One image, height x width x 3, under the corruption named (a key of `CORRUPTIONS`).

    Args:
        severity: 1 to 5.
        frost: the published images of frost, larger than this one; only the corruption `frost` needs them.
    """
    if name in _ON_BYTES:
        return _ON_BYTES[name](image, CORRUPTIONS[name][severity - 1])
    values, strength = image / 255.0, CORRUPTIONS[name][severity - 1]
    made = _frost(values, strength, draws, frost) if name == "frost" else _MADE[name](values, strength, draws)
    return (np.clip(made, 0, 1) * 255).astype(np.uint8)


def as_published(image: Image) -> Image:
    """The image after the JPEG compression that ImageNet-C is stored with (quality 85); it changes accuracies."""
    return _through_jpeg(image, 85, optimize=True)


def _through_jpeg(image: Image, quality: int, **options: Any) -> Image:
    stored = BytesIO()
    PIL.Image.fromarray(image).save(stored, "JPEG", quality=quality, **options)
    return np.array(PIL.Image.open(stored))


def _pixelate(image: Image, share: float) -> Image:
    height, width = image.shape[:2]
    few = PIL.Image.fromarray(image).resize((int(width * share), int(height * share)), PIL.Image.Resampling.BOX)
    return np.array(few.resize((width, height), PIL.Image.Resampling.BOX))


def _gaussian_noise(x: Values, deviation: float, draws: Generator) -> Values:
    return x + draws.normal(scale=deviation, size=x.shape)


def _shot_noise(x: Values, photons: float, draws: Generator) -> Values:
    return draws.poisson(x * photons) / photons


def _impulse_noise(x: Values, share: float, draws: Generator) -> Values:
    return np.asarray(random_noise(x, mode="s&p", rng=draws, amount=share))


def _speckle_noise(x: Values, deviation: float, draws: Generator) -> Values:
    return x + x * draws.normal(scale=deviation, size=x.shape)


def _gaussian_blur(x: Values, sigma: float, _: Generator) -> Values:
    return np.asarray(gaussian(x, sigma, channel_axis=-1))


def _glass_blur(x: Values, strength: tuple[float, int, int], draws: Generator) -> Values:
    sigma, reach, rounds = strength
    shuffled = (gaussian(x, sigma, channel_axis=-1) * 255).astype(np.uint8)
    for _ in range(rounds):
        shuffled = shuffled_nearby(shuffled, reach, draws)
    return np.asarray(gaussian(shuffled / 255.0, sigma, channel_axis=-1))


def _defocus_blur(x: Values, strength: tuple[int, float], _: Generator) -> Values:
    return np.asarray(cv2.filter2D(x, -1, disk(*strength)))


def _motion_blur(x: Values, strength: tuple[int, float], draws: Generator) -> Values:
    blurred = motion_blurred(x * 255, *strength, draws.uniform(-45, 45))
    return np.rint(blurred) / 255


def _zoom_blur(x: Values, factors: Sequence[float], _: Generator) -> Values:
    layers = [clipped_zoom(x, factor) for factor in factors]
    return np.asarray(np.mean([x, *layers], axis=0))


def _snow(x: Values, strength: tuple[float, ...], draws: Generator) -> Values:
    mean, deviation, zoom, threshold, radius, sigma, kept = strength
    flakes = clipped_zoom(draws.normal(mean, deviation, x.shape[:2]), zoom)
    flakes[flakes < threshold] = 0
    flakes = np.floor(np.clip(flakes, 0, 1) * 255)
    fallen = np.rint(motion_blurred(flakes, int(radius), sigma, draws.uniform(-135, -45)))[:, :, None] / 255
    grey = cv2.cvtColor(x.astype(np.float32), cv2.COLOR_RGB2GRAY)[:, :, None]
    return np.asarray(kept * x + (1 - kept) * np.maximum(x, grey * 1.5 + 0.5) + fallen + np.rot90(fallen, 2))


def _frost(x: Values, strength: tuple[float, float], draws: Generator, frost: Sequence[Image]) -> Values:
    height, width = x.shape[:2]
    ice = frost[int(draws.integers(len(frost)))]
    top, left = draws.integers(ice.shape[0] - height), draws.integers(ice.shape[1] - width)
    return strength[0] * x + strength[1] * ice[top : top + height, left : left + width] / 255.0


def _fog(x: Values, strength: tuple[float, float], draws: Generator) -> Values:
    thickness, decay = strength
    height, width = x.shape[:2]
    side = 1 << (max(height, width) - 1).bit_length()
    fog = thickness * plasma(side, decay, draws)[:height, :width, None]
    return np.asarray((x + fog) * x.max() / (x.max() + thickness))


def _spatter(x: Values, strength: tuple[float, ...], draws: Generator) -> Values:
    mean, deviation, sigma, threshold, weight, mud = strength
    liquid = np.asarray(gaussian(draws.normal(mean, deviation, x.shape[:2]), sigma))
    liquid[liquid < threshold] = 0
    if mud:
        covered = np.asarray(gaussian((liquid > threshold).astype(np.float32), weight))[:, :, None]
        covered[covered < 0.8] = 0
        return np.asarray(x * (1 - covered) + _MUD * covered)
    drops = (liquid * 255).astype(np.uint8)
    near = cv2.distanceTransform(255 - cv2.Canny(drops, 50, 150), cv2.DIST_L2, 5)
    near = cv2.blur(np.minimum(near, 20), (3, 3)).astype(np.uint8)
    lit = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float32)
    shine = cv2.blur(cv2.filter2D(cv2.equalizeHist(near), cv2.CV_8U, lit), (3, 3))
    water = drops * shine.astype(np.float32)
    return np.asarray(x + weight * (water / max(water.max(), 1.0))[:, :, None] * _WATER)


def _contrast(x: Values, share: float, _: Generator) -> Values:
    means = x.mean(axis=(0, 1), keepdims=True)
    return np.asarray((x - means) * share + means)


def _brightness(x: Values, more: float, _: Generator) -> Values:
    hsv = rgb2hsv(x)
    hsv[:, :, 2] = np.clip(hsv[:, :, 2] + more, 0, 1)
    return np.asarray(hsv2rgb(hsv))


def _saturate(x: Values, strength: tuple[float, float], _: Generator) -> Values:
    hsv = rgb2hsv(x)
    hsv[:, :, 1] = np.clip(hsv[:, :, 1] * strength[0] + strength[1], 0, 1)
    return np.asarray(hsv2rgb(hsv))


def _elastic_transform(x: Values, strength: tuple[float, float, float], draws: Generator) -> Values:
    """A random affine map of three points, then displacements that vary smoothly over the image."""
    height, width = x.shape[:2]
    # 244, not 224: a slip of the published code, which its images are made with.
    length, sigma, corner = (244 / 224 * height * share for share in strength)
    centre, reach = np.array([height // 2, width // 2], np.float32), min(height, width) // 3
    points = np.array([centre + reach, [centre[0] + reach, centre[1] - reach], centre - reach], np.float32)
    moved = points + draws.uniform(-corner, corner, points.shape).astype(np.float32)
    affine = cv2.getAffineTransform(points, moved)
    warped = cv2.warpAffine(x.astype(np.float32), affine, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    right, down = (
        gaussian(draws.uniform(-1, 1, (height, width)), sigma, mode="reflect", truncate=3) * length for _ in range(2)
    )
    rows, columns = np.mgrid[:height, :width]
    coordinates = [rows + down, columns + right]
    channels = [map_coordinates(warped[:, :, one], coordinates, order=1, mode="reflect") for one in range(3)]
    return np.stack(channels, axis=2)


_MADE: dict[str, Callable[[Values, Any, Generator], Values]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur,
    "glass_blur": _glass_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "snow": _snow,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic_transform": _elastic_transform,
    "speckle_noise": _speckle_noise,
    "gaussian_blur": _gaussian_blur,
    "spatter": _spatter,
    "saturate": _saturate,
}
_ON_BYTES: dict[str, Callable[[Image, Any], Image]] = {"pixelate": _pixelate, "jpeg_compression": _through_jpeg}

CORRUPTIONS: dict[str, Sequence[Any]] = {
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "shot_noise": (60, 25, 12, 5, 3),
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "zoom_blur": [np.arange(1, *end) for end in ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))],
    "snow": (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "elastic_transform": ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
    "jpeg_compression": (25, 18, 15, 10, 7),
    "speckle_noise": (0.15, 0.2, 0.35, 0.45, 0.6),
    "gaussian_blur": (1, 2, 3, 4, 6),
    "spatter": (
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    ),
    "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
}
"""The published strengths by corruption, one for each severity; the first 15 make mCE, four are for validation."""
