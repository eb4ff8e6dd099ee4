"""A contact sheet of images with their masks as outlines, the most suspicious first."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from bgsweep.augment.contact_sheet import outlined, view_grid
from bgsweep.data.missing_masks import mask_name
from bgsweep.errors import UnreadableImage, UserError
from bgsweep.images.compositing import Image, Mask, binarize, foreground_area
from bgsweep.images.decoding import decode_image
from bgsweep.images.files import images_among
from bgsweep.masks.grabcut import shrink
from bgsweep.masks.plan import HUGE, TINY
from bgsweep.masks.score import read_mask
from bgsweep.storage.tree import Tree

_COLUMNS = 8
# Masks are rated at this longer side, so that speckles count the same in small and large images.
_RATED_SIDE = 128
_MOST_RATED = 10_000


class Rating(NamedTuple):
    """A mask's suspicion, from 0 upward, and the reason in a word or two."""

    suspicion: float
    reason: str


def rate(mask: Mask) -> Rating:
    """Rate a mask: empty and full ones are most suspicious, then speckled ones, then cut-off or uncertain ones."""
    area = foreground_area(mask)
    if area == 0:
        return Rating(5, "empty")
    if area > HUGE:
        return Rating(2 + area, f"full {100 * area:.0f} %")
    if area < TINY:
        return Rating(4 - area, f"tiny {100 * area:.1f} %")
    small = shrink(mask, _RATED_SIDE)
    bits = binarize(small)
    pieces = cv2.connectedComponents(bits)[0] + cv2.connectedComponents(cv2.bitwise_not(bits))[0] - 4
    uncertain = float(np.mean((small > 63) & (small < 192)))
    rim = np.concatenate([bits[0], bits[-1], bits[:, 0], bits[:, -1]])
    cut = float(np.mean(rim > 0))
    speckled, vague = min(1.0, max(0, pieces) / 20), min(1.0, 2 * uncertain)
    ratings = [
        Rating(1 + speckled if speckled >= 0.2 else speckled, f"{pieces + 2} pieces"),
        Rating(vague, f"{100 * uncertain:.0f} % uncertain"),
        Rating(cut, f"{100 * cut:.0f} % of the rim"),
    ]
    worst = max(ratings)
    return worst if worst.suspicion >= 0.2 else Rating(worst.suspicion, f"{100 * area:.0f} %")


def contact_sheet(images: Tree, masks: Tree, count: int) -> tuple[Image, dict[str, Any]]:
    """The most suspicious masks of two trees; of more than 10,000 masks an evenly spaced sample of 10,000 is rated.

    Returns:
        The sheet (RGB), and the numbers of ``images`` with masks, of those ``looked_at`` and ``shown``, and of those
        ``without_mask``; the ``strangest`` with reasons; and the ``unreadable`` masks, one line each.

    Raises:
        UserError: no image has a readable mask, or a mask differs from its image in size.
    """
    present = masks.files()
    image_names = images_among(images.uri, images.files())
    paired = [name for name in image_names if mask_name(name) in present]
    if not image_names:
        raise UserError(f"{images.uri}: no such folder, or no images in it; name the folder that masks were made for")
    if not present:
        raise UserError(f"{masks.uri}: no such folder, or no masks in it; see `bgsweep masks make`")
    if not paired:
        raise UserError(
            f"{masks.uri}: has no mask for any of the {len(image_names)} images of {images.uri}; name the folder "
            "with the same structure"
        )
    looked_at = [paired[i] for i in np.linspace(0, len(paired) - 1, min(len(paired), _MOST_RATED)).astype(int)]
    ratings, unreadable = {}, []
    for name in looked_at:
        try:
            ratings[name] = rate(read_mask(masks, mask_name(name)))
        except UnreadableImage as error:
            unreadable.append(str(error))
    if not ratings:
        raise UserError(f"none of {len(looked_at)} masks can be read; {unreadable[0]}")
    shown = sorted(ratings, key=lambda name: (-ratings[name].suspicion, name))[:count]
    sheet = _sheet([_cell(images, masks, name) for name in shown], [ratings[name].reason for name in shown])
    return sheet, {
        "images": len(paired),
        "looked_at": len(looked_at),
        "shown": len(shown),
        "without_mask": len(image_names) - len(paired),
        "strangest": [{"image": name, "reason": ratings[name].reason} for name in shown],
        "unreadable": unreadable,
    }


def _cell(images: Tree, masks: Tree, name: str) -> Image:
    mask = read_mask(masks, mask_name(name))
    try:
        image, size = decode_image(images.read(name), name)
    except UnreadableImage:  # the mask itself can still be checked
        return outlined(np.zeros((*mask.shape, 3), np.uint8), mask)
    if size != mask.shape:
        raise UserError(
            f"{masks.uri}/{mask_name(name)}: {mask.shape[1]}x{mask.shape[0]} pixels, but its image {name} has "
            f"{size[1]}x{size[0]}; make this mask again"
        )
    return outlined(image, mask)


def _sheet(cells: Sequence[Image], reasons: Sequence[str]) -> Image:
    rows = [range(first, min(first + _COLUMNS, len(cells))) for first in range(0, len(cells), _COLUMNS)]
    grid = [[cells[index] for index in row] for row in rows]
    return view_grid(grid, [""] * min(_COLUMNS, len(cells)), [[reasons[index] for index in row] for row in rows])


def encode_sheet(sheet: Image) -> bytes:
    """An RGB image as PNG."""
    return cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1].tobytes()
