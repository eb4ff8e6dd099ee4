"""Images without a mask: found, counted and told in one way by every command."""

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from bgsweep.data.sample import ImageDataset
from bgsweep.errors import UserError

# An image without a mask is never augmented, so that a share of s of them lowers the probabilities asked for to (1 - s)
# of themselves: at a tenth, .20 becomes .18, about the step between values that are worth a comparison. More are mostly
# a wrong folder, or a `bgsweep masks make` that was stopped.
MOST_MISSING = 0.1


KEPT = "these keep their backgrounds: make their masks by `bgsweep masks make`"


class MaskFile(IntEnum):
    """The file of an image's mask."""

    PNG = 0  # named as by `mask_name`
    CAPITALS = 1  # the same, but it ends in .PNG
    MISSING = 2


class MissingMasks(NamedTuple):
    """The images of a set that have no mask: their number, that of all images, and one of them."""

    missing: int
    images: int
    example: str

    def __str__(self) -> str:
        return f"{self.missing} of {self.images} images have no mask, such as {self.example}"


def mask_name(image: str) -> str:
    """Path of an image's mask below the masks' root."""
    return image.rpartition(".")[0] + ".png"


def mask_file(image: str, found: int) -> str:
    """Path of the mask that was found for an image, below the masks' root."""
    name = mask_name(image)
    return f"{name[:-4]}.PNG" if found == MaskFile.CAPITALS else name


def match_masks(root: str, names: Sequence[str], there: Iterable[str]) -> npt.NDArray[np.uint8]:
    """Find each image's mask; gives the `MaskFile` of each.

    Args:
        root: folder or URI of the masks, for errors.
        names: the images.
        there: all files below `root`.

    Raises:
        UserError: more than a tenth of the images have no mask, or two have the same.
    """
    check_stems(root, names)
    files, found = set(there), np.zeros(len(names), np.uint8)
    if not files:
        raise UserError(f"{root}: no such folder, or no masks in it; each image needs a PNG: see `bgsweep masks make`")
    for index, name in enumerate(names):
        if (wanted := mask_name(name)) not in files:
            found[index] = MaskFile.CAPITALS if f"{wanted[:-4]}.PNG" in files else MaskFile.MISSING
    if missing := missing_among(names, found == MaskFile.MISSING):
        _check_share(root, missing, files)
    return found


def missing_among(names: Sequence[str], missing: npt.NDArray[np.bool_]) -> MissingMasks | None:
    """The images marked as missing; None if there are none."""
    count = int(np.count_nonzero(missing))
    return MissingMasks(count, len(names), names[int(np.argmax(missing))]) if count else None


def mask_note(dataset: ImageDataset) -> str | None:
    """A line on the images without a mask in a dataset, or in the one that it is part of; None if there are none."""
    while (inner := getattr(dataset, "dataset", None)) is not None:
        dataset = cast(ImageDataset, inner)
    found: MissingMasks | None = getattr(dataset, "missing_masks", None)
    return None if found is None else f"{dataset.name}: {found}; {KEPT}"


def check_stems(root: str, names: Sequence[str]) -> None:
    """Raise UserError where two images would share a mask."""
    owners: dict[str, str] = {}
    for name in names:
        other = owners.setdefault(mask_name(name), name)
        if other != name:
            raise UserError(f"{root}: {other} and {name} would share the mask {mask_name(name)}; rename one of them")


def _check_share(root: str, found: MissingMasks, files: set[str]) -> None:
    if found.missing <= MOST_MISSING * found.images:
        return
    wanted = mask_name(found.example)
    raise UserError(
        f"{root}: {found.missing} of {found.images} images have no mask, the first missing is "
        f"{wanted}; {_instead(wanted, files)}each image needs a PNG of the same name: see `bgsweep masks make` "
        f"(up to {MOST_MISSING:.0%} may be missing; with more, background augmentations are rarer than configured)"
    )


def _instead(wanted: str, files: set[str]) -> str:
    """A hint for errors: the files nearest to a missing mask."""
    folder, _, _ = wanted.rpartition("/")
    near = sorted(file for file in files if file.startswith(wanted[:-4]) and file != wanted)
    if near:
        return f"{near[0]} lies there, but "
    beside = sorted(file for file in files if file.rpartition("/")[0] == folder)
    return f"there lies {beside[0]}, for instance, but " if beside else ""
