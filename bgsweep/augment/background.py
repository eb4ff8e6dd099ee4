"""What stands behind a foreground: the pixels of BG_RM and BG_Random, made from a few uniform draws.

Draws are kept apart from pixels so that any backdrop can be made again from the numbers in a transform's parameters.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NotRequired, TypedDict, cast

import cv2
import numpy as np

from bgsweep.images.compositing import (
    Image,
    Mask,
    Rect,
    foreground_area,
    inpaint_background,
    largest_background_rectangle,
    solid,
    tile,
)

FillMode = Literal["random_gray", "black", "mean", "noise"]
DonorMode = Literal["tiled", "inpainted", "plain"]
LazyMask = Mask | Callable[[], Mask | None] | None


class Donor(TypedDict):
    """The image that gives its background; `tiled` and `inpainted` need its mask, or what was computed from it."""

    image: Image
    mask: NotRequired[LazyMask]
    rect: NotRequired[Rect | Callable[[], Rect | None] | None]
    plate: NotRequired[Callable[[], Image]]


Donors = Donor | Sequence[Donor] | Callable[[], Donor | Sequence[Donor]]
DonorDraw = tuple[float, float, float, float]


def resolve_mask(mask: LazyMask) -> Mask:
    """Masks may be handed over as functions, so that they are decoded only when a background transform was drawn."""
    mask = mask() if callable(mask) else mask
    if mask is None:
        raise ValueError("a background augmentation was drawn for an image that has no foreground mask")
    return mask


def area_verdict(mask: Mask, min_area: float, max_area: float) -> Literal["kept_small", "kept_large"] | None:
    """Why a view keeps its background: its foreground's share of the pixels is out of bounds. None if it is within."""
    area = foreground_area(mask)
    if area < min_area:
        return "kept_small"
    return "kept_large" if area > max_area else None


def removed_background(view: Image, mode: FillMode, draw: float) -> Image:
    """What BG_RM puts behind the foreground of a view.

    Args:
        view: height x width x channels.
        mode: `random_gray` (as in DiLo, Zhao et al. 2021), `black`, `mean` (the view's own mean colour, foreground
            included) or `noise` (uniform, for each pixel and channel).
        draw: uniform in [0, 1); decides the grey level, and is the seed of the noise.
    """
    height, width, channels = view.shape
    if mode == "noise":
        noise = np.random.default_rng(int(draw * 2**53)).bytes(view.size)
        return np.frombuffer(bytearray(noise), np.uint8).reshape(view.shape)
    if mode == "mean":
        return solid(height, width, cv2.mean(view)[:channels])
    level = int(draw * 256) if mode == "random_gray" else 0
    return np.full(view.shape, level, np.uint8)


def random_background(
    donors: Donors, mode: DonorMode, height: int, width: int, scale: tuple[float, float], draw: DonorDraw
) -> Image:
    """What BG_Random puts behind the foreground of a view of height x width.

    Args:
        donors: one donor, or several from which one is drawn.
        mode: `tiled` shows the plane tiled with the donor's largest background-only rectangle, at its own resolution
            and a random phase; a donor without any background is shown plain. `plain` shows the donor as it is, its
            own foreground included: a random window of the view's shape, brought to the view's size. `inpainted` does
            the same with the donor's foreground painted over from its surroundings (dear where that is not kept:
            milliseconds for a large photograph).
        scale: range of that window's share of the largest one that fits.
        draw: which donor, which share, how far down, how far right; each uniform in [0, 1).
    """
    pick, share, down, right = draw
    found = donors() if callable(donors) else donors
    donor = found if isinstance(found, Mapping) else found[int(pick * len(found))]
    image = donor["image"]
    if mode == "tiled" and (rect := _background_rect(donor)) is not None:
        return tile(image, rect, height, width, int(down * rect.height), int(right * rect.width))
    if mode == "inpainted":
        image = donor["plate"]() if "plate" in donor else inpaint_background(image, resolve_mask(donor.get("mask")))
    zoom = min(image.shape[0] / height, image.shape[1] / width)
    zoom *= (scale[0] + share * (scale[1] - scale[0])) ** 0.5
    rows, columns = max(1, round(height * zoom)), max(1, round(width * zoom))
    top, left = int(down * (image.shape[0] - rows + 1)), int(right * (image.shape[1] - columns + 1))
    window = Rect(top, left, top + rows, left + columns).of(image)
    return cast(Image, cv2.resize(window, (width, height), interpolation=cv2.INTER_LINEAR))


def _background_rect(donor: Donor) -> Rect | None:
    if "rect" in donor:
        rect = donor["rect"]
        return rect() if callable(rect) else rect
    return largest_background_rectangle(resolve_mask(donor.get("mask")))
