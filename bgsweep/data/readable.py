"""Iteration over a dataset that skips unreadable images."""

from collections.abc import Iterable, Iterator

from bgsweep.data.sample import ImageDataset, Sample
from bgsweep.errors import UnreadableImage, warn_once


def readable(dataset: ImageDataset, indices: Iterable[int] | None = None) -> Iterator[tuple[int, Sample]]:
    """The images (all, or those at `indices`) that can be read, mask included, with their indices.

    Each unreadable one gives a warning, once in a process.
    """
    for index in range(len(dataset)) if indices is None else indices:
        try:
            sample = dataset[index]
            _ = sample.mask
        except UnreadableImage as error:
            warn_once(f"{error}; it is left out")
        else:
            yield index, sample
