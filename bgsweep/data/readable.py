"""Going through photographs some of which may not be readable."""

import logging
from collections.abc import Iterable, Iterator
from functools import lru_cache

from bgsweep.data.sample import Sample, Source
from bgsweep.errors import UnreadableImage

_log = logging.getLogger(__name__)


def readable(source: Source, indices: Iterable[int] | None = None) -> Iterator[tuple[int, Sample]]:
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


@lru_cache(maxsize=10_000)
def warn_once(message: str) -> None:
    """Log a warning, once for each message and process."""
    _log.warning("%s", message)
