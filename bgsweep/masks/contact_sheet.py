"""A contact sheet of images with their masks as outlines, the strangest first."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from bgsweep.augment.contact_sheet import outlined, view_grid
from bgsweep.data.datasets.folder import mask_name
from bgsweep.errors import UnreadableImage, UserError
from bgsweep.images.compositing import Image, Mask, binarize, foreground_area
from bgsweep.images.decoding import decode_image
from bgsweep.images.files import images_among
from bgsweep.masks.grabcut import shrink
from bgsweep.masks.plan import HUGE, TINY
from bgsweep.masks.score import read_mask
from bgsweep.storage.tree import Tree

_COLUMNS = 8
# Masks are judged at this longer side, so that speckles count alike in small and large images.
_JUDGED_SIDE = 128
_LOOKED_AT = 10_000


class Verdict(NamedTuple):
    """Strangeness of a mask, from 0 up, with its reason in a word or two."""

    strangeness: float
    reason: str


def judge(mask: Mask) -> Verdict:
    """Empty and full masks are stranger than speckled ones, these stranger than those cut off or undecided."""
    area = foreground_area(mask)
    if area == 0:
        return Verdict(5, "empty")
    if area > HUGE:
        return Verdict(2 + area, f"full {100 * area:.0f} %")
    if area < TINY:
        return Verdict(4 - area, f"tiny {100 * area:.1f} %")
    small = shrink(mask, _JUDGED_SIDE)
    bits = binarize(small)
    pieces = cv2.connectedComponents(bits)[0] + cv2.connectedComponents(cv2.bitwise_not(bits))[0] - 4
    undecided = float(np.mean((small > 63) & (small < 192)))
    rim = np.concatenate([bits[0], bits[-1], bits[:, 0], bits[:, -1]])
    cut = float(np.mean(rim > 0))
    speckled, vague = min(1.0, max(0, pieces) / 20), min(1.0, 2 * undecided)
    verdicts = [
        Verdict(1 + speckled if speckled >= 0.2 else speckled, f"{pieces + 2} pieces"),
        Verdict(vague, f"{100 * undecided:.0f} % undecided"),
        Verdict(cut, f"{100 * cut:.0f} % of the rim"),
    ]
    worst = max(verdicts)
    return worst if worst.strangeness >= 0.2 else Verdict(worst.strangeness, f"{100 * area:.0f} %")


def contact_sheet(images: Tree, masks: Tree, count: int) -> tuple[Image, dict[str, Any]]:
    """The strangest masks of two trees; of more than 10,000, so many are looked at, evenly spread.

    Returns:
        The sheet (RGB), and ``images`` with masks, those ``looked_at`` and ``shown``, ``without_mask``, the
        ``strangest`` with reasons, and the masks that are ``unreadable``, each in a line.

    Raises:
        UserError: no image has a mask that can be read, or a mask is of another size.
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
            "that mirrors it"
        )
    looked_at = [paired[i] for i in np.linspace(0, len(paired) - 1, min(len(paired), _LOOKED_AT)).astype(int)]
    verdicts, unreadable = {}, []
    for name in looked_at:
        try:
            verdicts[name] = judge(read_mask(masks, mask_name(name)))
        except UnreadableImage as error:
            unreadable.append(str(error))
    if not verdicts:
        raise UserError(f"none of the {len(looked_at)} masks looked at can be read; {unreadable[0]}")
    shown = sorted(verdicts, key=lambda name: (-verdicts[name].strangeness, name))[:count]
    sheet = _sheet([_cell(images, masks, name) for name in shown], [verdicts[name].reason for name in shown])
    return sheet, {
        "images": len(paired),
        "looked_at": len(looked_at),
        "shown": len(shown),
        "without_mask": len(image_names) - len(paired),
        "strangest": [{"image": name, "reason": verdicts[name].reason} for name in shown],
        "unreadable": unreadable,
    }


def _cell(images: Tree, masks: Tree, name: str) -> Image:
    mask = read_mask(masks, mask_name(name))
    try:
        image, size = decode_image(images.read(name), name)
    except UnreadableImage:  # the mask is still worth a look
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
