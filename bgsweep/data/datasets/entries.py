"""`Entry`: an image as a form of files gives it, with its label, mask and split; what these forms have in common."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bgsweep.errors import UserError
from bgsweep.images.files import SUFFIXES

WHOLE = -1
NONE = "none"
"""The value of a key of `data.columns` for something that is not read."""


class Place(NamedTuple):
    """Bytes of a file: from an offset on, or all of it (`WHOLE`)."""

    file: str
    offset: int
    size: int


class Entry(NamedTuple):
    """An image of a file.

    Attributes:
        split: of the image; empty where the files tell none.
        name: path by which random draws are keyed, without leading / or .. in it, with an image's suffix.
        label: name of its class; None where it has none.
        image, mask: where they are; None for an image without a mask.
        where: file and line or key, for errors.
    """

    split: str
    name: str
    label: str | None
    image: Place
    mask: Place | None
    where: str


class Entries(NamedTuple):
    """The images of files.

    Attributes:
        classes: in the order of their numbers; None: the labels that occur, sorted.
        copied: the file of the cache that has the images; None where they are read from the files themselves.
    """

    images: Iterable[Entry]
    classes: Sequence[str] | None = None
    copied: str | None = None


def named(path: str) -> str:
    """A path as an image's name: without a drive, a leading / or a .. that leads out."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    found: list[str] = []
    for part in parts:
        if part == "..":
            del found[-1:]
        else:
            found.append(part)
    return "/".join(found)


def is_image(name: str) -> bool:
    """True for the name of an image."""
    return name.lower().endswith(SUFFIXES)


def suffix_of(data: bytes) -> str:
    """The suffix for an encoded image without a name, by its first 12 bytes."""
    for begin, suffix in _SIGNATURES:
        if data.startswith(begin):
            return suffix
    return ".webp" if data[8:12] == b"WEBP" else ".avif" if data[4:8] == b"ftyp" else ".jpg"


_SIGNATURES = ((b"\x89PNG", ".png"), (b"GIF8", ".gif"), (b"BM", ".bmp"), (b"II*\0", ".tif"), (b"MM\0*", ".tif"))


def column(
    given: str | None, usual: Sequence[str], there: Sequence[str], key: str, where: str, needed: bool = False
) -> str | None:
    """The name among those that are there: the given one, else the first usual one; None: there is none, or `none`.

    Raises:
        UserError: the given one is not there, or one is needed.
    """
    if given is None and (found := [name for name in usual if name in there]):
        return found[0]
    if given in there:
        return given
    if (given is None and not needed) or (given == NONE and not needed):
        return None
    known = f"there are {', '.join(there[:12])}" if there else "there is none"
    raise UserError(f"{where}: no column {given or usual[0]!r} ({known}); name it by data.columns.{key}")
