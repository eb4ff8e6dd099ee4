"""The pixels of BG_RM, BG_Random and BG_Swaps (Ryali et al., arXiv 2103.12719), made from a few uniform draws.

Draws are kept apart from pixels, so that any background can be made again from the numbers in a transform's parameters.
`training_crop` calls this at source resolution on the crop window, before the one resize: `cv2.copyTo` there takes
0.14 ms a view, where compositing the whole image with NumPy takes 1.1 to 1.7 ms, and the pixels are the same.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, NotRequired, TypedDict, cast

import cv2
import numpy as np

from bgsweep.augment.crop_window import draw_window
from bgsweep.images.compositing import (
    Image,
    Mask,
    Rect,
    binarize,
    foreground_area,
    inpaint_background,
    largest_background_rectangle,
    paste,
    solid,
    tile,
)

FillMode = Literal["random_gray", "black", "mean", "noise"]
DonorMode = Literal["tiled", "inpainted", "plain"]
NegativeKind = Literal["silhouette", "foreground"]
Blend = Literal["hard", "soft"]
LazyMask = Mask | Callable[[], Mask | None] | None

_NEGATIVE_TRIES = 10


class Donor(TypedDict):
    """The image that gives its background; `tiled` and `inpainted` need its mask, or what was computed from it.

    `rect` is its largest background-only rectangle, `inpainted` gives it with its foreground painted over.
    """

    image: Image
    mask: NotRequired[LazyMask]
    rect: NotRequired[Rect | Callable[[], Rect | None] | None]
    inpainted: NotRequired[Callable[[], Image]]


Donors = Donor | Sequence[Donor] | Callable[[], Donor | Sequence[Donor]]
DonorDraw = tuple[float, float, float, float]
"""Uniform in [0, 1): which donor, its window's size, how far down, how far right."""


def resolve_mask(mask: LazyMask) -> Mask:
    """The mask, from a function if it is one.

    Masks are passed as functions because decoding one (22 us from a pack, 340 us from a PNG) is wasted on the two
    thirds of samples for which no background transform is drawn.
    """
    mask = mask() if callable(mask) else mask
    if mask is None:
        raise ValueError("a background augmentation was drawn for an image that has no foreground mask")
    return mask


def area_verdict(mask: Mask, min_area: float, max_area: float) -> Literal["kept_small", "kept_large"] | None:
    """The reason for which a view keeps its background: too little or too much foreground. None if it is augmented."""
    # MaskContrast (Van Gansbeke et al. 2021) drops masks below 1 % of an image, the default of `min_area`; a crop that
    # is nearly all foreground (`max_area`) has no background worth replacing.
    area = foreground_area(mask)
    if area < min_area:
        return "kept_small"
    return "kept_large" if area > max_area else None


def removed_background(view: Image, mode: FillMode, draw: float) -> Image:
    """BG_RM: the background that is put behind the foreground of a view.

    Args:
        view: height x width x channels.
        mode: `random_gray` (as in DiLo, Zhao et al. 2021), `black`, `mean` (the view's own mean colour, foreground
            included) or `noise` (uniform, for each pixel and channel).
        draw: uniform in [0, 1); decides the grey level, and is the seed of the noise.
    """
    # A setting, because what is known of the paper's fill disagrees: black in one source, grey in another.
    height, width, channels = view.shape
    if mode == "noise":
        # A seed instead of the noise itself: pixels among a transform's parameters bloat every ReplayCompose record.
        noise = np.random.default_rng(int(draw * 2**53)).bytes(view.size)
        return np.frombuffer(bytearray(noise), np.uint8).reshape(view.shape)
    if mode == "mean":
        return solid(height, width, cv2.mean(view)[:channels])
    level = int(draw * 256) if mode == "random_gray" else 0
    return np.full(view.shape, level, np.uint8)


def random_background(
    donors: Donors, mode: DonorMode, height: int, width: int, scale: tuple[float, float], draw: DonorDraw
) -> Image:
    """BG_Random: another image's background, for a view of height x width.

    Args:
        donors: one donor, or several from which one is drawn.
        mode: `tiled` shows the plane tiled with the donor's largest background-only rectangle, at its own resolution
            and a random phase; a donor without any background is shown plain. `plain` shows the donor as it is, its
            own foreground included: a random window of the view's shape, resized to the view. `inpainted` does the
            same with the donor's foreground painted over from its surroundings (milliseconds for a large image, unless
            the donor keeps the result).
        scale: range of that window's share of the largest one that fits.
        draw: which donor, which share, how far down, how far right; each uniform in [0, 1).
    """
    # All four are drawn in every mode, so that runs that differ in the mode share their other draws.
    pick, share, down, right = draw
    found = donors() if callable(donors) else donors
    donor = found if isinstance(found, Mapping) else found[int(pick * len(found))]
    image = donor["image"]
    # Only the view's window is tiled, with its phase: 0.23 ms, where tiling the whole image with NumPy takes 1.7 ms.
    if mode == "tiled" and (rect := _background_rect(donor)) is not None:
        return tile(image, rect, height, width, int(down * rect.height), int(right * rect.width))
    # A donor is shown without a mask, so the hole that its foreground leaves must be filled: otherwise it would be a
    # second object. Labels are not used to choose donors, since pretraining has none.
    if mode == "inpainted":
        precomputed = donor.get("inpainted")
        image = precomputed() if precomputed else inpaint_background(image, resolve_mask(donor.get("mask")))
    zoom = min(image.shape[0] / height, image.shape[1] / width)
    zoom *= (scale[0] + share * (scale[1] - scale[0])) ** 0.5
    rows, columns = max(1, round(height * zoom)), max(1, round(width * zoom))
    top, left = int(down * (image.shape[0] - rows + 1)), int(right * (image.shape[1] - columns + 1))
    window = Rect(top, left, top + rows, left + columns).of(image)
    return cast(Image, cv2.resize(window, (width, height), interpolation=cv2.INTER_LINEAR))


def _background_rect(donor: Donor) -> Rect | None:
    # Datasets keep it with the sample: the search takes 0.3 ms, more than crop and resize of a view.
    if "rect" in donor:
        rect = donor["rect"]
        return rect() if callable(rect) else rect
    return largest_background_rectangle(resolve_mask(donor.get("mask")))


class Negative(TypedDict):
    """The other image that BG_Swaps' negative shows in front of a query's background; `seed` draws its crop.

    `foreground` shows its foreground there, `silhouette` its pixels within the query's own foreground mask.
    """

    kind: NegativeKind
    image: Image
    mask: LazyMask
    seed: int


def negative_crop(negative: Negative, height: int, width: int, scale: tuple[float, float]) -> Image:
    """BG_Swaps, silhouette: a random crop of the other image, resized to the query's view."""
    ratio = (width / height, width / height)
    image = negative["image"]
    rect = draw_window(image.shape[0], image.shape[1], scale, ratio, random.Random(negative["seed"]))
    return cast(Image, cv2.resize(rect.of(image), (width, height)))


def negative_in_front(
    negative: Negative, background: Image, scale: tuple[float, float], min_area: float, max_area: float
) -> Image:
    """BG_Swaps, foreground: the foreground of a random crop of the other image, in front of a background of its size.

    The crop is the first of ten whose foreground is within the area bounds, else the whole image.
    """
    height, width = background.shape[:2]
    image, mask, generator = negative["image"], resolve_mask(negative["mask"]), random.Random(negative["seed"])
    ratio = (width / height, width / height)
    for _ in range(_NEGATIVE_TRIES):
        rect = draw_window(mask.shape[0], mask.shape[1], scale, ratio, generator)
        if area_verdict(rect.of(mask), min_area, max_area) is None:
            break
    else:
        rect = Rect(0, 0, mask.shape[0], mask.shape[1])
    crop, crop_mask = (cast(Image, cv2.resize(rect.of(array), (width, height))) for array in (image, mask))
    return paste(crop, crop_mask, background)


class Placement(NamedTuple):
    """A foreground's new size and position.

    Attributes:
        factor: what its sides are multiplied by; less where it would not fit into the view.
        down, right: 0 (at the top, left) to 1 (at the bottom, right); None where its middle stays where it is.
    """

    factor: float
    down: float | None = None
    right: float | None = None


def draw_placement(scale: float, order: int, generator: random.Random) -> Placement:
    """A factor log-uniform between 1 / `scale` and `scale`, and a position by the Bates distribution of an order.

    The mean of `order` uniform draws, for each axis (ForAug, Nauen et al. 2025): 1 is uniform, more are nearer the
    middle. With order 0 the foreground stays where it is.
    """
    factor = scale ** generator.uniform(-1, 1)
    if not order:
        return Placement(factor)
    down, right = (sum(generator.random() for _ in range(order)) / order for _ in range(2))
    return Placement(factor, down, right)


def move_foreground(view: Image, mask: Mask, placement: Placement) -> tuple[Image, Mask]:
    """A view and its foreground mask, warped so that the mask's foreground has another size and position.

    A foreground that the view's edge cut off stays cut off. Pixels that come from outside the view are background.
    """
    left, top, width, height = cv2.boundingRect(binarize(mask))
    if not width:  # there is none, which `background.min_area: 0` allows
        return view, mask
    rows, columns = mask.shape
    # A foreground larger than the view would be cut off.
    factor = min(placement.factor, rows / height, columns / width)
    new_top = _start(top + height / 2, height * factor, rows, placement.down)
    new_left = _start(left + width / 2, width * factor, columns, placement.right)
    # From the middle of the first pixel to that of the last; at factor 1 a shift by whole pixels, which is exact.
    middle = (factor - 1) / 2
    matrix = np.array([[factor, 0, new_left - left * factor + middle], [0, factor, new_top - top * factor + middle]])
    size = (columns, rows)
    moved = cv2.warpAffine(view, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cast(Image, moved), cast(Mask, cv2.warpAffine(mask, matrix, size, flags=cv2.INTER_LINEAR))


def _start(middle: float, length: float, available: int, share: float | None) -> int:
    """First row or column of a foreground of a length: around its middle, or at a share of the space that is left."""
    free = max(0.0, available - length)
    return round(min(max(middle - length / 2, 0.0), free) if share is None else share * free)


def composite(view: Image, mask: Mask, background: Image, blend: Blend, mask_blur: float = 0.0) -> Image:
    """The foreground of a view in front of a background, which may be written to.

    Args:
        blend: `hard` (foreground where the mask is above 127) or `soft` (mixed by the mask's grey levels).
        mask_blur: sigma of a Gaussian over the mask, in pixels; where it is not 0 both are mixed along the edge.
    """
    alpha = mask if blend == "soft" else binarize(mask)
    if mask_blur:
        alpha = cast(Mask, cv2.GaussianBlur(alpha, (0, 0), mask_blur))
    elif blend == "hard":
        # A masked copy, 8 to 11 times as fast as a product with the mask, and exact.
        return cast(Image, cv2.copyTo(view, alpha, background))
    return mix(view, alpha, background)


def mix(image: Image, alpha: Mask, background: Image) -> Image:
    """(`alpha` * image + (255 - `alpha`) * background) / 255, rounded."""
    # 32 bits, since the product of two uint8 values needs more than 8; + 127 rounds to the nearest.
    weight = alpha.astype(np.uint32)[..., None]
    return cast(Image, ((image * weight + background * (255 - weight) + 127) // 255).astype(np.uint8))


def __getattr__(name: str) -> object:
    """The transforms, which were in this module before they got one of their own."""
    # Albumentations saves a transform under its module: policies that earlier versions logged name this one.
    if name in ("RemoveBackground", "RandomBackground"):
        from bgsweep.augment import transforms

        return getattr(transforms, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
