"""Going through photographs some of which may not be readable."""

from collections.abc import Iterable, Iterator

from bgsweep.data.sample import ImageDataset, Sample
from bgsweep.errors import UnreadableImage, warn_once


def readable(source: ImageDataset, indices: Iterable[int] | None = None) -> Iterator[tuple[int, Sample]]:
    """The photographs (all, or those named) that can be read, mask included, with their indices.

    Each of the others is warned of, once in a process.
    """
    for index in range(len(source)) if indices is None else indices:
        try:
            sample = source[index]
            _ = sample.mask
        except UnreadableImage as error:
            warn_once(f"{error}; it is left out")
        else:
            yield index, sample
