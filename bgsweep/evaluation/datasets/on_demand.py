"""Images that are made when they are read."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import overload

from bgsweep.data import Image


class MadeOnDemand(Sequence[Image]):
    """A sequence of images, each made from its number; the ``kept`` last used ones stay in memory."""

    def __init__(self, count: int, make: Callable[[int], Image], kept: int) -> None:
        self._count = count
        self._image = lru_cache(maxsize=kept)(make)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Image: ...
    @overload
    def __getitem__(self, index: slice) -> list[Image]: ...
    def __getitem__(self, index: int | slice) -> Image | list[Image]:
        if isinstance(index, slice):
            return [self._image(number) for number in range(*index.indices(self._count))]
        return self._image(index)
