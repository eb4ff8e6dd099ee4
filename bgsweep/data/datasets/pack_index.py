"""The index of a pack, mapped from its file: no process reads all of it but the first of a machine, part by part."""

import bisect
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bgsweep.data.datasets.folder_index import check_count, class_of_each
from bgsweep.data.names import Names
from bgsweep.data.sample import UNLABELLED
from bgsweep.storage.shared_arrays import LARGE, Arrays, index_folder, map_array, part_of, shared_arrays

_PIECE = 16 << 20
# Arrays of more entries are made in a file, so that the memory does not grow with the pack.
_MANY = 1 << 22
_LEADS_OUT = (b"\0/", b"\0../", b"/../")


class PackIndex(NamedTuple):
    """The index of one split.

    Attributes:
        names: of the images, below the split's folder.
        labels: indices into `classes`.
        classes: names of the class folders.
        arrays: those of `pack.Record`, one entry an image.
        identity: tells the split and its content from others; None for a small pack.
    """

    names: Names
    labels: npt.NDArray[np.int64]
    classes: list[str]
    arrays: dict[str, npt.NDArray[Any]]
    identity: str | None


def pack_index(file: Path, sha256: str, split: str, first: int, count: int, where: str) -> PackIndex:
    """Open the index of a split of `count` images from the `first` on.

    Raises:
        UserError: there are fewer than two images.
        ValueError, KeyError, OSError: the file is not the one that was written, or damaged.
    """
    members = _members(file)
    kind, shape, at = members.pop("names")
    text = map_array(str(file), kind, shape, at)
    status = file.stat()
    state = [str(file), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, sha256]
    bounds = _kept(len(text) // 8, [*state, "bounds"], lambda: {"bounds": _bounds(file, text, sha256)})["bounds"]
    prefix = 0 if split == "." else len(split.encode("utf-8", "surrogateescape")) + 1
    # Each name's begin, behind the split's; the next one's tells its end.
    begins = part_of(bounds, first, count + 1)
    names = Names.of(text, begins, skip=prefix, gap=1)
    check_count(where, names)
    if "labels" in members:  # what names say does not count
        found: Arrays = {"labels": np.empty(0, np.int64), "classes": np.empty(0, np.uint8)}
    else:
        found = _kept(count, [*state, "labels", split, where], lambda: _labels(where, names))
    classes = found["classes"].tobytes().decode("utf-8", "surrogateescape")
    arrays: dict[str, npt.NDArray[Any]] = {
        name: map_array(str(file), kind, (count, *shape[1:]), at + first * _row_bytes(kind, shape))
        for name, (kind, shape, at) in members.items()
    }
    if count <= LARGE:
        # In memory: a small pack may be written over while it is in use, which would kill a process that maps it.
        names, arrays = Names(names), {name: np.array(values) for name, values in arrays.items()}
    identity = _mark([*state, split]) if count > LARGE else None
    return PackIndex(names, found["labels"], classes.split("\0") if classes else [], arrays, identity)


def _mark(state: Sequence[object]) -> str:
    return hashlib.sha256(repr(state).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _kept(count: int, state: Sequence[object], make: Any) -> Arrays:
    """The result of `make`, made only once on a machine if it is large."""
    if count <= LARGE:
        made: Arrays = make()
        return made
    return shared_arrays(index_folder() / f"{_mark(state)}.arrays", make)


def _row_bytes(kind: str, shape: tuple[int, ...]) -> int:
    return int(np.dtype(kind).itemsize * np.prod(shape[1:], dtype=np.int64))


def _members(file: Path) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """Type, shape and place in bytes of each array of an npz file that is not compressed."""
    found = {}
    if not zipfile.is_zipfile(file):
        raise ValueError("its index is not the one that was written")
    with zipfile.ZipFile(file) as archive, file.open("rb") as raw:
        for entry in archive.infolist():
            with archive.open(entry) as member:
                read = np.lib.format.read_magic(member)
                header = np.lib.format.read_array_header_1_0 if read == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, kind = header(member)
                before = member.tell()
            if entry.compress_type != zipfile.ZIP_STORED or kind.hasobject:
                raise ValueError(f"{entry.filename} in it cannot be mapped")
            raw.seek(entry.header_offset + 26)
            lengths = np.frombuffer(raw.read(4), "<u2")  # of the name and of what is added to it
            at = entry.header_offset + 30 + int(lengths.sum()) + before
            found[entry.filename.removesuffix(".npy")] = kind.str, shape, at
    return found


def _bounds(file: Path, text: npt.NDArray[np.uint8], sha256: str) -> npt.NDArray[np.int64]:
    """The start of each name, and of the one after the last, after a check of the whole file."""
    with file.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
            raise ValueError("its index is not the one that was written")
    count, ends = 1, b"\0"
    for _, piece in _pieces(text):
        count += piece.count(b"\0")
        joined = ends + piece + (b"\0" if len(piece) < _PIECE else b"")
        if any(stranger in joined for stranger in _LEADS_OUT):
            raise ValueError("a name in it leads out of the pack")
        ends = piece[-4:]
    bounds = _array(count + 1)
    filled = 1
    for at, piece in _pieces(text):
        found = np.flatnonzero(np.frombuffer(piece, np.uint8) == 0)
        bounds[filled : filled + len(found)] = found + (at + 1)
        filled += len(found)
    bounds[0], bounds[-1] = 0, len(text) + 1
    return bounds


def _pieces(text: npt.NDArray[np.uint8]) -> Iterator[tuple[int, bytes]]:
    for at in range(0, len(text), _PIECE):
        yield at, np.asarray(text[at : at + _PIECE]).tobytes()


def _labels(where: str, names: Names) -> Arrays:
    """Labels and classes. Names are sorted, so that a class is a run, whose end is found by halving."""
    labels, classes, at = _array(len(names)), [], 0
    if "/" not in names[0]:
        classes = sorted(set(class_of_each(where, names)) - {""})  # refuses images beside class folders
        labels[:] = UNLABELLED
        at = len(names)
    while at < len(names):
        own = class_of_each(where, [names[0], names[at]])[1]
        until = bisect.bisect_left(names, f"{own}0", at)  # 0 follows /
        labels[at:until] = len(classes)
        classes.append(own)
        at = until
    if classes != sorted(set(classes)):
        raise ValueError("its names are not sorted")
    said = "\0".join(classes).encode("utf-8", "surrogateescape")
    return {"labels": labels, "classes": np.frombuffer(said, np.uint8)}


def _array(count: int) -> npt.NDArray[np.int64]:
    """Room for so many numbers, that of many of them in a file without a name."""
    if count > _MANY:
        folder = index_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                os.posix_fallocate(file.fileno(), 0, count * 8)
                return np.memmap(file, np.int64, "r+", shape=(count,))
        except OSError:  # `shared_arrays` will tell
            pass
    return np.empty(count, np.int64)
