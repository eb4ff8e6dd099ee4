"""`Listing`: the images that files list or hold, whatever their form, with labels, masks and splits.

A form of files is a function that finds the `Entry` of every image. From these an index is made, once on a machine:
names in order, and for each image and mask its file, offset and size, so that images are read in any order.
"""

import bisect
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bgsweep.config.columns import Columns
from bgsweep.data.datasets.entries import WHOLE, Entries, Entry, Place
from bgsweep.data.datasets.file_sets import FileSet, file_set
from bgsweep.data.names import Names
from bgsweep.data.order import spread_evenly
from bgsweep.data.sample import UNLABELLED
from bgsweep.errors import UnreadableImage, UserError
from bgsweep.images.files import read_file, size_of
from bgsweep.storage.hashing import digest
from bgsweep.storage.shards import read_part
from bgsweep.storage.shared_arrays import Arrays, index_folder, part_of, shared_arrays
from bgsweep.storage.tree import FileStat

_FORMAT = 2
# Indexes of smaller files are made anew each time, which takes less than a second.
_KEPT_FROM = 1 << 20
_SIZES_AGAIN = 1_000


class Listing:
    """The images of some files.

    Attributes:
        uri: the files, as the user names them.
        names: of all images, split first, sorted.
        labels: indices into `classes`, or ``UNLABELLED``.
        classes: names of all labels; `declared` if the files list them, used or not.
        splits: the number of the first image of each split, and how many it has; ``.`` is all of them.
        copied: as of `Entries`.
        key: tells the content of the files from others; None for a small set.
    """

    def __init__(self, uri: str, arrays: Arrays, key: str | None) -> None:
        about = json.loads(arrays["about"].tobytes())
        self.uri, self.key, self._arrays = uri, key, arrays
        self.classes: list[str] = about["classes"]
        self.declared: bool = about["declared"]
        self.copied: str | None = about["copied"]
        self.splits: dict[str, tuple[int, int]] = {name: tuple(part) for name, part in about["splits"].items()}
        self.names = Names.of(arrays["text"], arrays["bounds"])
        self.labels = arrays["labels"]
        self.image_at, self.mask_at = arrays["image_at"], arrays["mask_at"]
        self._files = Names.of(arrays["file_text"], arrays["file_bounds"])

    def ids(self, split: str) -> Names:
        """The names of a split's images, below the split."""
        first, count = self.splits[split]
        prefix = 0 if split == "." else len(split.encode("utf-8", "surrogateescape")) + 1
        return Names.of(self._arrays["text"], part_of(self._arrays["bounds"], first, count + 1), skip=prefix)

    def part(self, array: npt.NDArray[Any], split: str) -> npt.NDArray[Any]:
        """The entries of one split in an array over all images."""
        return part_of(array, *self.splits[split])

    @property
    def has_masks(self) -> bool:
        """True if any image has a mask in the files."""
        return bool((np.asarray(self.mask_at)[:, 0] >= 0).any())

    def class_of(self, index: int) -> str:
        """The class of an image; empty where it has none."""
        label = int(self.labels[index])
        return self.classes[label] if label >= 0 else ""

    def find(self, name: str) -> int:
        """The number of an image by its whole name; raises UnreadableImage where there is none."""
        found = bisect.bisect_left(self.names, name)
        if found == len(self.names) or self.names[found] != name:
            raise UnreadableImage(f"{self.uri}: no image {name} in it")
        return found

    def read(self, at: npt.NDArray[np.int64]) -> bytes:
        """The bytes at a place of `image_at` or `mask_at`; raises UnreadableImage."""
        file, offset, size = (int(each) for each in at)
        path = self._files[file]
        if offset == WHOLE:
            return read_file(path)
        try:
            content = read_part(path, offset, size)
        except OSError as error:
            raise UnreadableImage(f"{path}: cannot be read ({error.strerror}); copy it again") from error
        if len(content) < size:
            raise UnreadableImage(f"{path}: is shorter than it was; copy it again")
        return content

    def told(self, at: npt.NDArray[np.int64], name: str) -> str:
        """A place in words, for errors."""
        path = self._files[int(at[0])]
        return path if at[1] == WHOLE else f"{path}: {name}"

    def location(self, at: npt.NDArray[np.int64]) -> str:
        """A place as text that no other place has."""
        path = self._files[int(at[0])]
        return path if at[1] == WHOLE else f"{path}:{int(at[1])}"

    def stats(self, at: npt.NDArray[np.int64]) -> Iterator[FileStat]:
        """Size of each place, and when its file has changed last."""
        known: dict[int, FileStat] = {}
        for file, offset, size in at.tolist():
            if (whole := known.get(file)) is None:
                whole = known[file] = self._stat(self._files[file])
            yield whole if offset == WHOLE else FileStat(size, whole.changed)

    def _stat(self, path: str) -> FileStat:
        sources = [path]
        # The time of a copy in the cache is that of its last use.
        if path == self.copied and (files := file_set(self.uri)) is not None:
            sources = [str(source) for _, source in files.files]
        try:
            found = [os.stat(source) for source in sources]  # noqa: PTH116 - for millions of files
        except OSError:  # which is reported when it is read
            return FileStat(0, 0.0)
        return FileStat(found[0].st_size, max(status.st_mtime for status in found))

    def other_sizes(self) -> list[int] | None:
        """Sizes of some images and masks that are files by themselves; None where they are those of the index."""
        chosen = spread_evenly(len(self.names), _SIZES_AGAIN)
        at = np.concatenate([np.asarray(places)[chosen] for places in (self.image_at, self.mask_at)])
        at = at[at[:, 1] == WHOLE]
        sizes = [size_of(self._files[file]) for file in at[:, 0].tolist()]
        return None if sizes == at[:, 2].tolist() else sizes

    def forget(self) -> None:
        """Remove the index, so that it is made anew."""
        if self.key is not None:
            _index_file(self.key).unlink(missing_ok=True)

    def __reduce__(self) -> tuple[Any, ...]:
        return Listing, (self.uri, self._arrays, self.key)


def own_classes(
    labels: npt.NDArray[np.int64], classes: list[str], declared: bool
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """The labels of a split and the classes that they index into: those that occur in it, or all that are declared."""
    used = np.unique(labels)
    used = used[used >= 0]
    if (declared and len(used)) or len(used) == len(classes):
        return labels, classes
    table = np.full(len(classes) + 1, UNLABELLED, np.int64)  # the last is that of UNLABELLED, -1
    table[used] = np.arange(len(used))
    return table[labels], [classes[number] for number in used]


def digest_with_labels(images: str, labels: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    """The digest of images whose names do not say their classes."""
    names = "\0".join(classes).encode("utf-8", "surrogateescape")
    return digest([images], [np.asarray(labels).astype("<i8").tobytes() + names])


def state_of(files: FileSet, columns: Columns) -> tuple[object, ...]:
    """All that an index follows from: the files with sizes and times of change, and the names in them."""
    states = []
    for split, path in files.files:
        try:
            status = path.stat()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); copy it again") from error
        where = os.path.abspath(path)  # noqa: PTH100 - resolve() would follow links, which may come to lead elsewhere
        states.append((split, where, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))
    root = None if columns.root is None else os.path.abspath(Path(columns.root).expanduser())  # noqa: PTH100
    return (_FORMAT, files.kind, *states, repr(columns), root)


def key_of(state: tuple[object, ...]) -> str:
    """The name of what is kept for files in a `state_of`."""
    return hashlib.sha256(repr(state).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def index_of(files: FileSet, state: tuple[object, ...], entries: Callable[[], Entries]) -> Listing:
    """The listing of files, whose `entries` are asked for where no index of these files is kept.

    Images that a file lists may be written over in place, which does not change that file: the sizes of some of them
    are asked for again.

    Raises:
        UserError: there are no images, or two of one name.
    """
    made = partial(_made, files.uri, entries)
    if sum(path.stat().st_size for _, path in files.files) < _KEPT_FROM:
        return Listing(files.uri, made(), None)
    key = key_of(state)
    found = Listing(files.uri, shared_arrays(_index_file(key), made), key)
    if (sizes := found.other_sizes()) is None:
        return found
    # Beside the first one, which other runs may map, and by whose key more is kept that follows from it.
    key = key_of((key, *sizes))
    return Listing(files.uri, shared_arrays(_index_file(key), made), key)


def _index_file(key: str) -> Path:
    return index_folder() / f"{key}.arrays"


def _made(uri: str, find: Callable[[], Entries]) -> Arrays:
    entries = find()
    found = sorted(entries.images, key=_whole_name)
    if not found:
        raise UserError(f"{uri}: no images in it; name files that have some")
    _check(found)
    classes = _in_order({each.label for each in found} - {None}) if entries.classes is None else entries.classes
    numbers: dict[str | None, int] = {None: UNLABELLED} | {name: number for number, name in enumerate(classes)}
    splits: dict[str, list[int]] = {".": [0, len(found)]}
    for number, each in enumerate(found):
        if each.split:
            splits.setdefault(each.split, [number, 0])[1] += 1
    files: dict[str, int] = {}
    names = Names(map(_whole_name, found))
    image_at = np.array([_at(each.image, files) for each in found], np.int64)
    mask_at = np.array([_at(each.mask, files) for each in found], np.int64)
    paths = Names(files)
    about = {
        "classes": list(classes),
        "declared": entries.classes is not None,
        "copied": entries.copied,
        "splits": splits,
    }
    return {
        "text": names.text,
        "bounds": names.bounds,
        "labels": np.array([numbers[each.label] for each in found], np.int64),
        "image_at": image_at,
        "mask_at": mask_at,
        "file_text": paths.text,
        "file_bounds": paths.bounds,
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
    }


def _whole_name(entry: Entry) -> str:
    return f"{entry.split}/{entry.name}" if entry.split else entry.name


def _check(entries: Sequence[Entry]) -> None:
    """Raise UserError where two images have one name, or only some of a split have labels."""
    for one, other in pairwise(entries):
        if _whole_name(one) == _whole_name(other):
            raise UserError(f"{other.where}: {other.name} is in {one.where} too; remove one of the two")
        if one.split == other.split and (one.label is None) != (other.label is None):
            without, has = (one, other) if one.label is None else (other, one)
            raise UserError(
                f"{without.where}: no label, but {has.where} has one; add it, or read none (data.columns.label=none)"
            )


def _at(place: Place | None, files: dict[str, int]) -> tuple[int, int, int]:
    if place is None:
        return -1, 0, 0
    return files.setdefault(place.file, len(files)), place.offset, place.size


def _in_order(labels: Iterable[Any]) -> list[str]:
    """Labels in the order of their numbers, if all are numbers, so that class 10 follows class 9."""
    if all(each.isdecimal() for each in labels):  # not isdigit, which is true of ² too
        return sorted(labels, key=lambda each: (int(each), each))  # 1 and 01 in one order in all processes
    return sorted(labels)
