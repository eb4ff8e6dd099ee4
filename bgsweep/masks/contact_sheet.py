"""A contact sheet of images with their masks as outlines, the most suspicious first."""

import random
from typing import Any

import cv2

from bgsweep.augment.contact_sheet import outlined, view_grid
from bgsweep.images.compositing import Image
from bgsweep.masks.ranking import Progress, evenly_spaced, pairs_of, rank, read_pair
from bgsweep.masks.second import Second
from bgsweep.storage.tree import Tree

_COLUMNS = 8


def contact_sheet(
    images: Tree, masks: Tree, count: int, second: Second, most: int, progress: Progress = lambda *_: None
) -> tuple[Image, dict[str, Any]]:
    """The most suspicious masks of two trees, and below them a row drawn at random, which shows what most are like.

    Args:
        count: number of suspicious masks.
        second: the method (or folder) that the masks are compared with.
        most: number of masks to rate; of more an evenly spaced sample is rated.
        progress: as of `rank`.

    Returns:
        The sheet (RGB), and the numbers of ``images`` with masks, of those ``looked_at`` and ``shown``, and of those
        ``without_mask``; the ``strangest`` with reasons; the ``second`` method; and the ``unreadable`` masks, one line
        each.

    Raises:
        UserError: no image has a readable mask.
    """
    paired, without = pairs_of(images, masks)
    chosen = evenly_spaced(paired, most)
    found = rank(images, masks, chosen, second.masks, progress)
    shown = found.rated[:count]
    drawn = random.Random(0).sample(found.rated, min(_COLUMNS, len(found.rated)))
    rows = [shown[first : first + _COLUMNS] for first in range(0, len(shown), _COLUMNS)]
    cells = [[outlined(*read_pair(images, masks, each.image)) for each in row] for row in (*rows, drawn)]
    captions = [[each.suspicion.reason for each in row] for row in rows] + [["random"] * len(drawn)]
    return view_grid(cells, [""] * min(_COLUMNS, len(found.rated)), captions), {
        "images": len(paired),
        "looked_at": len(chosen),
        "shown": len(shown),
        "without_mask": without,
        "second": second.name,
        "strangest": [{"image": each.image, "reason": each.suspicion.reason} for each in shown],
        "unreadable": found.unreadable,
    }


def encode_sheet(sheet: Image) -> bytes:
    """An RGB image as PNG."""
    return cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1].tobytes()
