"""Masks of a tree in the order of their suspicion, by comparison with the masks of a second method."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from bgsweep.data.cores import usable_cores
from bgsweep.data.missing_masks import mask_name
from bgsweep.errors import UnreadableImage, UserError
from bgsweep.images.compositing import Image, Mask
from bgsweep.images.decoding import decode_image, decode_mask
from bgsweep.images.files import images_among
from bgsweep.masks.grabcut import shrink
from bgsweep.masks.plan import GROUP
from bgsweep.masks.second import SecondMasks
from bgsweep.masks.suspicion import Suspicion, suspicion
from bgsweep.storage.tree import Tree

# No mask method works at a longer side than this.
_SIDE = 400


Progress = Callable[[int, int], None]


class Rated(NamedTuple):
    """An image and its mask's suspicion."""

    image: str
    suspicion: Suspicion


class Ranking(NamedTuple):
    """Masks that were rated.

    Attributes:
        rated: the most suspicious first.
        unreadable: a line for each mask that could not be rated.
    """

    rated: Sequence[Rated]
    unreadable: Sequence[str]


def pairs_of(images: Tree, masks: Tree) -> tuple[list[str], int]:
    """The images that have a mask (a PNG of the same name), and the number of the others.

    Raises:
        UserError: there are none.
    """
    present = masks.files()
    names = images_among(images.uri, images.files())
    if not names:
        raise UserError(f"{images.uri}: no such folder, or no images in it; name the folder that masks were made for")
    if not present:
        raise UserError(f"{masks.uri}: no such folder, or no masks in it; see `bgsweep masks make`")
    paired = [name for name in names if mask_name(name) in present]
    if not paired:
        raise UserError(
            f"{masks.uri}: has no mask for any of the {len(names)} images of {images.uri}; name the folder "
            "with the same structure"
        )
    return paired, len(names) - len(paired)


def evenly_spaced(names: Sequence[str], most: int) -> list[str]:
    """At most ``most`` of some names, the first and the last among them."""
    return [names[i] for i in np.linspace(0, len(names) - 1, min(len(names), most)).astype(int)]


def rank(
    images: Tree,
    masks: Tree,
    names: Sequence[str],
    second: SecondMasks | None,
    progress: Progress = lambda *_: None,
) -> Ranking:
    """Rate the masks of some images.

    Args:
        progress: called with the number of masks that have been rated since the last call, and that of all.

    Raises:
        UserError: none of these masks can be read.
    """
    groups = [names[first : first + GROUP] for first in range(0, len(names), GROUP)]
    # OpenCV, torch and scikit-image compute without Python's lock.
    found: list[Rated | str] = []
    # OpenMP's limit is that of a thread, so each sets its own.
    limited = partial(threadpool_limits, 1)
    with limited(), ThreadPoolExecutor(usable_cores(), initializer=limited) as pool:
        for group in pool.map(lambda group: _rate(images, masks, group, second), groups):
            found += group
            progress(len(group), len(names))
    rated = [each for each in found if isinstance(each, Rated)]
    unreadable = [each for each in found if isinstance(each, str)]
    if not rated:
        raise UserError(f"none of {len(names)} masks can be read; {unreadable[0]}")
    return Ranking(sorted(rated, key=lambda each: (-each.suspicion.value, each.image)), unreadable)


def read_pair(images: Tree, masks: Tree, name: str) -> tuple[Image, Mask]:
    """An image and its mask, of the same size.

    Raises:
        UnreadableImage: one of them is damaged, or they do not belong together.
    """
    data = images.read(name)
    image, size = decode_image(data, name)
    path = mask_name(name)
    return image, decode_mask(masks.read(path), f"{masks.uri}/{path}", size, name, read_image=lambda: data)


def _rate(images: Tree, masks: Tree, names: Sequence[str], second: SecondMasks | None) -> list[Rated | str]:
    """The masks' suspicion, or why one cannot be read."""
    pairs: dict[str, tuple[Image, Mask]] = {}
    found: dict[str, Rated | str] = {}
    for name in names:
        try:
            image, mask = read_pair(images, masks, name)
        except UnreadableImage as error:
            found[name] = str(error)
        else:
            pairs[name] = shrink(image, _SIDE), shrink(mask, _SIDE)
    others = list(second(list(pairs), [image for image, _ in pairs.values()])) if second else [None] * len(pairs)
    for (name, (image, mask)), other in zip(pairs.items(), others, strict=True):
        found[name] = Rated(name, suspicion(image, mask, other))
    return [found[name] for name in names]
