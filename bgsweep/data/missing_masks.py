"""Names of masks, and images without one: found, counted and told in one way by every command."""

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from bgsweep.config.mask_format import MaskFormat
from bgsweep.errors import UserError

# An image without a mask is never augmented, so that a share of s of them lowers the probabilities asked for to (1 - s)
# of themselves: at a tenth, .20 becomes .18, about the step between values that are worth a comparison. More are mostly
# a wrong folder, or a `bgsweep masks make` that was stopped.
MOST_MISSING = 0.1


KEPT = "these keep their backgrounds: make their masks by `bgsweep masks make`"
PLAIN = MaskFormat().pattern


class MaskFile(IntEnum):
    """The file of an image's mask."""

    NAMED = 0  # as by `mask_name`
    CAPITALS = 1  # the same, but with its suffix in capitals
    MISSING = 2


class MissingMasks(NamedTuple):
    """The images of a set that have no mask: their number, that of all images, and one of them."""

    missing: int
    images: int
    example: str

    def __str__(self) -> str:
        return f"{self.missing} of {self.images} images have no mask, such as {self.example}"


def mask_name(image: str, pattern: str = PLAIN) -> str:
    """Path of an image's mask below the masks' root."""
    if pattern == PLAIN:
        return image.rpartition(".")[0] + ".png"
    folder, slash, name = image.rpartition("/")
    found = pattern.replace("{name}", name).replace("{stem}", name.rpartition(".")[0])
    return found[1:] if found.startswith("/") else folder + slash + found


def mask_file(image: str, found: int, pattern: str = PLAIN) -> str:
    """Path of the mask that was found for an image, below the masks' root."""
    name = mask_name(image, pattern)
    return _in_capitals(name) if found == MaskFile.CAPITALS else name


def match_masks(
    root: str, names: Sequence[str], there: Iterable[str], pattern: str = PLAIN, most_missing: float = MOST_MISSING
) -> npt.NDArray[np.uint8]:
    """Find each image's mask; gives the `MaskFile` of each.

    Args:
        root: folder or URI of the masks, for errors.
        names: the images.
        there: all files below `root`.
        pattern: names of masks, as of `MaskFormat`.
        most_missing: the share of images that may have none.

    Raises:
        UserError: more have none, or two images have the same.
    """
    check_stems(root, names, pattern)
    files, found = set(there), np.zeros(len(names), np.uint8)
    if not files:
        raise UserError(f"{root}: no such folder, or no masks in it; each image needs a PNG: see `bgsweep masks make`")
    for index, name in enumerate(names):
        if (wanted := mask_name(name, pattern)) not in files:
            found[index] = MaskFile.CAPITALS if _in_capitals(wanted) in files else MaskFile.MISSING
    missing = missing_among(names, found == MaskFile.MISSING)
    if missing is not None and missing.missing > most_missing * missing.images:
        _refuse_missing(root, missing, files, pattern)
    return found


def _in_capitals(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem + dot + suffix.upper()


def missing_among(names: Sequence[str], missing: npt.NDArray[np.bool_]) -> MissingMasks | None:
    """The images marked as missing; None if there are none."""
    count = int(np.count_nonzero(missing))
    return MissingMasks(count, len(names), names[int(np.argmax(missing))]) if count else None


def check_stems(root: str, names: Sequence[str], pattern: str = PLAIN) -> None:
    """Raise UserError where two images would share a mask."""
    owners: dict[str, str] = {}
    for name in names:
        mask = mask_name(name, pattern)
        other = owners.setdefault(mask, name)
        if other != name:
            raise UserError(f"{root}: {other} and {name} would share the mask {mask}; rename one of them")


def _refuse_missing(root: str, found: MissingMasks, files: set[str], pattern: str) -> NoReturn:
    wanted = mask_name(found.example, pattern)
    raise UserError(
        f"{root}: {found.missing} of {found.images} images have no mask, the first missing is "
        f"{wanted}; {_instead(found.example, wanted, files)}each image needs a PNG of the same name, or one that "
        f"data.mask_format.pattern (--pattern) describes: see `bgsweep masks make` (up to {MOST_MISSING:.0%} may be "
        "missing; with more, background augmentations are rarer than configured)"
    )


def _instead(image: str, wanted: str, files: set[str]) -> str:
    """A hint for errors: the files nearest to a missing mask, and the pattern that would find them."""
    folder, _, name = image.rpartition("/")
    stem = name.rpartition(".")[0]
    beside = sorted(file for file in files if file.rpartition("/")[0] == folder and file != wanted)
    near = [file for file in beside if stem in file.rpartition("/")[2]]
    if near:
        pattern = near[0].rpartition("/")[2].replace(stem, "{stem}", 1)
        return f"{near[0]} lies there (pattern '{pattern}'), but "
    return f"there lies {beside[0]}, for instance, but " if beside else ""
