"""Checks, conversions and compositing of what users of the public transforms pass in: images, masks and donors."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from bgsweep.augment.background import Donor, DonorMode, Negative, negative_crop, negative_in_front
from bgsweep.images.compositing import Image, Mask, binarize, tiled_background

AnyImage = npt.NDArray[np.uint8] | npt.NDArray[np.float32]

# Interpolation may leave the range of a float image by a little.
_TOLERANCE = 0.05


def checked_image(image: Any, name: str) -> AnyImage:
    """Raise TypeError or ValueError unless an image is uint8, or float32 of 0 to 1, with three channels."""
    if not isinstance(image, np.ndarray) or image.dtype not in (np.uint8, np.float32):
        raise TypeError(f"{name}: must be a NumPy array of uint8 or float32, not {_kind(image)}")
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"{name}: must be height x width x 3 (RGB), not {_shape(image)}")
    if image.dtype == np.float32:
        least, most = float(image.min()), float(image.max())
        if not (least >= -_TOLERANCE and most <= 1 + _TOLERANCE):
            raise ValueError(
                f"{name}: float images must be of 0 to 1, not of {least:g} to {most:g}; put background transforms "
                "before Normalize"
            )
    return image


def bytes_of(image: AnyImage) -> Image:
    """A checked image as uint8."""
    if image.dtype == np.uint8:
        return cast(Image, image)
    return cast(Image, (image.clip(0, 1) * 255).round().astype(np.uint8))


def like(background: Image, image: AnyImage) -> AnyImage:
    """A uint8 image in the type and range of another."""
    return background if image.dtype == np.uint8 else background.astype(np.float32) / np.float32(255)


def foreground(mask: Any, size: tuple[int, ...] | None, name: str) -> Mask:
    """A mask as uint8, 0 to 255.

    Args:
        mask: height x width (x 1), bool, integers of 0 and 1 or of 0 to 255, or floats of 0 to 1 or of 0 to 255; a
            function that gives one.
        size: height and width that it must have; None for any.
        name: its name in errors.

    Raises:
        TypeError, ValueError: the mask has another type, shape or range.
    """
    mask = mask() if callable(mask) else mask
    if mask is None:
        raise ValueError(f"{name}: is None; a background augmentation was drawn for an image without foreground mask")
    if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "buif":
        raise TypeError(f"{name}: must be a NumPy array of numbers, not {_kind(mask)}")
    mask = mask[..., 0] if mask.ndim == 3 and mask.shape[2] == 1 else mask
    if mask.ndim != 2 or not mask.size:
        raise ValueError(f"{name}: must be height x width, not {_shape(mask)}")
    if size is not None and mask.shape != tuple(size):
        raise ValueError(f"{name}: is {_shape(mask)}, but its image {size[0]} x {size[1]}")
    return _levels(mask, name)


def _levels(mask: npt.NDArray[Any], name: str) -> Mask:
    if mask.dtype == np.bool_:
        return cast(Mask, mask.astype(np.uint8) * np.uint8(255))
    least, most = mask.min(), mask.max()
    if not (least >= 0 and most <= 255):
        raise ValueError(f"{name}: masks are of 0 and 1 or of 0 to 255, not of {least:g} to {most:g}")
    if most <= 1:
        return cast(Mask, (mask * 255.0).round().astype(np.uint8) if mask.dtype.kind == "f" else _of_ones(mask))
    if most < 16:  # higher ones may be the rim of a soft mask, of which a crop shows no more
        warnings.warn(
            f"{name}: has no level above {most:g}, so that nothing is foreground; masks are of 0 and 1 or 0 to 255",
            stacklevel=2,
        )
    return cast(Mask, mask if mask.dtype == np.uint8 else mask.round().astype(np.uint8))


def _of_ones(mask: npt.NDArray[Any]) -> Mask:
    return cast(Mask, mask.astype(np.uint8) * np.uint8(255))


def chosen_donor(donors: Any, mode: DonorMode, draw: float, name: str) -> Donor:
    """The donor that a draw in [0, 1) selects, its image and mask as uint8.

    Raises:
        TypeError, ValueError: there is no donor, or it lacks what `mode` needs.
    """
    found = donors() if callable(donors) else donors
    if isinstance(found, Sequence) and not isinstance(found, str):
        if not found:
            raise ValueError(f"{name}: an empty list; background transforms need at least one donor")
        found = found[int(draw * len(found))]
    if not isinstance(found, Mapping) or "image" not in found:
        keys = ", ".join(map(str, found)) if isinstance(found, Mapping) else ""
        kind = f"a dictionary of {keys or 'nothing'}" if isinstance(found, Mapping) else _kind(found)
        raise TypeError(f"{name}: must be a dictionary with `image` and `mask`, or a list of such, not {kind}")
    image = bytes_of(checked_image(found["image"], f"{name}'s image"))
    donor = cast(Donor, {**found, "image": image})
    precomputed = {"tiled": "rect", "inpainted": "inpainted"}.get(mode)
    if precomputed is not None and precomputed not in donor:
        if donor.get("mask") is None:
            raise ValueError(f"{name}: has no `mask`, which a {mode} donor needs; give it, or take donor='plain'")
        donor["mask"] = foreground(donor["mask"], image.shape[:2], f"{name}'s mask")
    return donor


def in_front(image: AnyImage, mask: Mask, behind: Image) -> AnyImage:
    """The foreground of a checked image in front of a background of its size, which may be written to."""
    # A masked copy, much faster than `np.where`: see `background.composite`.
    return cast(AnyImage, cv2.copyTo(image, binarize(mask), like(behind, image)))


def with_negative(
    image: AnyImage, mask: Mask, negative: Negative, scale: tuple[float, float], min_area: float, max_area: float
) -> AnyImage:
    """BG_Swaps' negative of a checked image: another image in front of its background."""
    if negative["kind"] == "silhouette":
        other = like(negative_crop(negative, mask.shape[0], mask.shape[1], scale), image)
        return cast(AnyImage, cv2.copyTo(other, binarize(mask), image.copy()))
    background = tiled_background(bytes_of(image), mask)
    return like(negative_in_front(negative, background, scale, min_area, max_area), image)


def _kind(value: Any) -> str:
    return (
        f"an array of {value.dtype}"
        if isinstance(value, np.ndarray)
        else "None"
        if value is None
        else type(value).__name__
    )


def _shape(array: npt.NDArray[Any]) -> str:
    return " x ".join(map(str, array.shape))
