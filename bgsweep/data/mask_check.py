"""A check of a dataset's masks before a long run starts."""

import os
from collections import Counter
from collections.abc import Callable
from itertools import groupby
from typing import NamedTuple

from bgsweep.config.mask_format import MaskFormat
from bgsweep.data.mask_kinds import kind_of
from bgsweep.data.order import spread_evenly
from bgsweep.errors import UnreadableImage, UserError, WrongMask, warn_once
from bgsweep.images.decoding import read_gray, scaled_mask, stored_size, upright_mask, upright_size
from bgsweep.images.mask_form import PLAIN, MaskForm
from bgsweep.images.mask_levels import PngKind, png_kind, seen_ids

# Masks that are decoded, further ones of each kind of PNG that is not among those, and headers that are read (a quarter
# of a second on a local disk).
DECODED, DECODED_OF_KIND, HEADERS = 512, 16, 20_000


class Pair(NamedTuple):
    """An image and its mask: their names in errors, and functions that read them."""

    image: str
    mask: str
    read_image: Callable[[], bytes]
    read_mask: Callable[[], bytes]


class _Fit(NamedTuple):
    """A decoded mask's kind, and what it took to fit it to its image.

    Attributes:
        kind: as `kind_of` says.
        turned: the image's EXIF orientation was applied to it; None: sizes do not tell whether it should be.
        scaled: by a pixel.
    """

    kind: str
    turned: bool | None
    scaled: bool


def form_of(given: MaskFormat) -> MaskForm:
    """The part of a format that says what pixels mean."""
    return MaskForm(given.channel, given.foreground, given.void)


def check_masks(count: int, pair_at: Callable[[int], Pair], local: bool, form: MaskForm = PLAIN) -> dict[str, int]:
    """Decode masks spread evenly over a dataset. Damaged files are skipped here; training counts them.

    Args:
        count: number of images in the dataset.
        pair_at: gives one of them with its mask.
        local: masks are named by their paths on this machine, where their headers cost little to read.
        form: the meaning of their pixels.

    Returns:
        The number of masks of each kind (`kind_of`).

    Raises:
        UserError: masks have levels that are neither foreground nor background, or another size than their images; or
            ids, of which none is foreground in any mask.
    """
    wrong: list[str] = []
    fits: dict[str, _Fit] = {}
    chosen = [pair_at(index) for index in _chosen(count, pair_at, local)]
    for pair in chosen:
        try:
            fits[pair.image] = _fit(pair, form)
        except WrongMask as error:
            wrong.append(str(error))
        except UnreadableImage:
            continue
    if wrong:
        raise UserError(f"{wrong[0]} ({len(wrong)} of the {len(chosen)} masks looked at are wrong)")
    if fits and form.foreground is not None and all(fit.kind == "empty" for fit in fits.values()):
        _refuse_empty(next(pair for pair in chosen if pair.image in fits), form)
    _tell(fits, len(chosen))
    return dict(Counter(fit.kind for fit in fits.values()))


def _fit(pair: Pair, form: MaskForm) -> _Fit:
    mask = read_gray(pair.read_mask(), pair.mask, form)
    image = pair.read_image()
    upright, size = upright_mask(mask, image), upright_size(image)
    scaled = scaled_mask(upright, pair.mask, size, pair.image)
    (height, width), orientation = stored_size(image)
    # EXIF orientations from 5 on exchange height and width.
    unclear = orientation > 1 and (orientation < 5 or height == width) and pair.image != pair.mask
    return _Fit(kind_of(mask), True if upright is not mask else None if unclear else False, scaled is not upright)


def _refuse_empty(pair: Pair, form: MaskForm) -> None:
    seen = seen_ids(pair.read_mask(), pair.mask, form)
    raise UserError(
        f"{pair.mask}: has the ids {seen}, of which none is foreground, nor is any in the other masks looked at; "
        "correct data.mask_format.foreground (--foreground)"
    )


def _tell(fits: dict[str, _Fit], looked_at: int) -> None:
    """Warn of masks that are turned or scaled, and of those that may have to be turned."""
    turned = [image for image, fit in fits.items() if fit.turned]
    unclear = [image for image, fit in fits.items() if fit.turned is None]
    scaled = [image for image, fit in fits.items() if fit.scaled]
    if turned:
        warn_once(
            f"{turned[0]}: its mask has the size of the image before its EXIF orientation is applied, so it is turned "
            f"like the image; {len(turned)} of the {looked_at} images looked at are like this"
        )
    if unclear:
        warn_once(
            f"{unclear[0]}: the image has an EXIF orientation; its mask is taken to be of the upright image, which "
            f"sizes do not tell: see `bgsweep preview` ({len(unclear)} of {looked_at} images are like this)"
        )
    if scaled:
        warn_once(
            f"{scaled[0]}: its mask differs from it by a pixel in size, and is scaled; {len(scaled)} of the "
            f"{looked_at} images looked at are like this"
        )


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
