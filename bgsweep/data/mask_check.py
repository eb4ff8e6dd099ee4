"""A check of a dataset's masks before a long run starts."""

import os
from collections.abc import Callable
from itertools import groupby
from typing import NamedTuple

from bgsweep.data.order import spread_evenly
from bgsweep.errors import UnreadableImage, UserError, WrongMask, warn_once
from bgsweep.images.decoding import Size, read_gray, stored_size, upright_mask
from bgsweep.images.mask_levels import PngKind, png_kind

# Masks that are decoded, further ones of each kind of PNG that is not among those, and headers that are read (a quarter
# of a second on a local disk).
DECODED, DECODED_OF_KIND, HEADERS = 512, 16, 20_000


class Pair(NamedTuple):
    """An image and its mask: their names in errors, and functions that read them."""

    image: str
    mask: str
    read_image: Callable[[], bytes]
    read_mask: Callable[[], bytes]


def check_masks(count: int, pair_at: Callable[[int], Pair], local: bool) -> None:
    """Decode masks spread evenly over a dataset. Damaged files are skipped here; training counts them.

    Args:
        count: number of images in the dataset.
        pair_at: gives one of them with its mask.
        local: masks are named by their paths on this machine, where their headers cost little to read.

    Raises:
        UserError: masks have levels that are neither foreground nor background, or another size than their images.
    """
    wrong: list[str] = []
    turned: list[str] = []
    unturned: list[str] = []
    chosen = _chosen(count, pair_at, local)
    for pair in map(pair_at, chosen):
        try:
            turn = _needs_turning(pair)
        except WrongMask as error:
            wrong.append(str(error))
        except UnreadableImage:
            continue
        else:
            (turned if turn is True else unturned if turn is False else []).append(pair.image)
    if wrong:
        raise UserError(f"{wrong[0]} ({len(wrong)} of the {len(chosen)} masks looked at are wrong)")
    if turned:
        warn_once(
            f"{turned[0]}: its mask has the size of the image before its EXIF orientation is applied, so it is turned "
            f"like the image; {len(turned)} of the {len(chosen)} images looked at are like this"
        )
    if unturned:
        warn_once(
            f"{unturned[0]}: the image has an EXIF orientation; its mask is taken to be of the upright image, which "
            f"sizes do not tell: see `bgsweep preview` ({len(unturned)} of {len(chosen)} images are like this)"
        )


def _needs_turning(pair: Pair) -> bool | None:
    """True if the mask must be turned like its image; None where the image has no EXIF orientation that matters."""
    mask = read_gray(pair.read_mask(), pair.mask)
    image = pair.read_image()
    stored, orientation = stored_size(image)
    # EXIF orientations from 5 on exchange height and width.
    upright = stored[::-1] if orientation >= 5 else stored
    oriented = upright_mask(mask, image)
    if oriented.shape != upright:
        raise WrongMask(
            f"{pair.mask}: {_size(mask.shape)} pixels, but its image {pair.image} has {_size(upright)}; "
            "a mask must have its image's size"
        )
    if oriented is not mask:
        return True
    return False if orientation > 1 and (orientation < 5 or stored[0] == stored[1]) else None


def _size(shape: Size | tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"


def _chosen(count: int, pair_at: Callable[[int], Pair], local: bool) -> list[int]:
    chosen = set(spread_evenly(count, DECODED).tolist())
    if local and count > DECODED:
        headed = spread_evenly(count, HEADERS).tolist()
        # An even sample can miss a rare kind of PNG (bit depth, colour type), such as that of one source among several.
        kinds = {index: kind for index in headed if (kind := _kind(pair_at(index).mask))}
        known = {kinds.get(index) for index in chosen}
        rare = sorted((kind, index) for index, kind in kinds.items() if kind not in known)
        for _, group in groupby(rare, lambda each: each[0]):
            chosen |= {index for _, index in list(group)[:DECODED_OF_KIND]}
    return sorted(chosen)


def _kind(path: str) -> PngKind | None:
    try:
        # O_NONBLOCK, so that a FIFO with an image's name does not block. 26 bytes hold a PNG's size, bit depth and
        # colour type.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return png_kind(os.read(descriptor, 26))
        finally:
            os.close(descriptor)
    except OSError:
        return None
