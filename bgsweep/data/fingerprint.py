"""Fingerprints of the images of a run, by which the same ones are recognised at another path."""

import hashlib
from collections.abc import Sequence

import numpy as np

from bgsweep.data.leaks import files_of
from bgsweep.data.sample import ImageDataset
from bgsweep.data.splits import SplitName, Splits
from bgsweep.errors import UnreadableImage
from bgsweep.storage.hashing import Digest

# Reading 100 images and masks takes less than a second, also where each access takes milliseconds.
_READ = 100
_NAMED = 2_000_000


def fingerprints(splits: Splits, names: Sequence[SplitName]) -> dict[str, str]:
    """The `fingerprint` of each split."""
    return {name: fingerprint(getattr(splits, name)) for name in names}


def fingerprint(dataset: ImageDataset) -> str:
    """SHA-256, first 16 hex digits, over the number of images, their names and labels, and the contents of 100 of them.

    A pack has that of the folders that it was made of. Of more than two million images as many names and labels count.
    Whatever follows from the configuration (a shortcut, mask noise) does not.
    """
    found = files_of(dataset)
    files, indices = (dataset, np.arange(len(dataset))) if found is None else found
    total = Digest()
    named = _spread(len(dataset), _NAMED)
    names = "\0".join(dataset.ids[each] for each in named)
    total.add(f"{len(dataset)} names", names.encode("utf-8", "surrogateescape"))
    total.add("classes", "\0".join(dataset.classes).encode("utf-8", "surrogateescape"))
    total.add("labels", hashlib.sha256(np.asarray(dataset.labels)[named].astype("<i8").tobytes()).digest())
    for each in _spread(len(dataset), _READ):
        index = int(indices[each])
        try:
            total.add("image", files[index].image.tobytes() if found is None else found[0].encoded(index))
            mask = files[index].mask
            total.add("mask", b"" if mask is None else mask.tobytes())
        except UnreadableImage:
            total.add("unreadable", b"")
    return total.value()


def _spread(count: int, wanted: int) -> list[int]:
    """At most so many numbers below a count, at equal distances."""
    chosen: list[int] = np.linspace(0, count - 1, min(count, wanted)).round().astype(int).tolist()
    return chosen
