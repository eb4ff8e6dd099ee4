"""Lists of millions of names in little memory."""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, overload

import numpy as np
import numpy.typing as npt


class Names(Sequence[str]):
    """An immutable list of strings: one block of bytes and 8 bytes for each, where a list takes about 60 for each.

    Forked processes share it with their parent for good: reading a list of strings writes reference counts, and so
    copies its pages. With arrays of a mapped file (`storage.shared_arrays`) all processes of a machine share it.
    """

    def __init__(self, names: Iterable[str]) -> None:
        # File names on Linux are bytes that need not be UTF-8.
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        self._set(
            np.frombuffer(b"".join(encoded), np.uint8),
            np.fromiter(accumulate(map(len, encoded), initial=0), np.int64, len(encoded) + 1),
        )

    @classmethod
    def of(cls, text: npt.NDArray[np.uint8], bounds: npt.NDArray[np.int64], skip: int = 0, gap: int = 0) -> "Names":
        """The names in a text, each from `skip` bytes behind one bound to `gap` bytes before the next."""
        names = cls.__new__(cls)
        names._set(text, bounds, skip, gap)
        return names

    def _set(self, text: npt.NDArray[np.uint8], bounds: npt.NDArray[np.int64], skip: int = 0, gap: int = 0) -> None:
        self.text, self.bounds, self._skip, self._gap = text, bounds, skip, gap
        self._bytes, self._limits = np.asarray(text), np.asarray(bounds)

    def __reduce__(self) -> tuple[Any, ...]:
        return Names.of, (self.text, self.bounds, self._skip, self._gap)

    def __len__(self) -> int:
        return len(self._limits) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        positions = range(len(self))[index]
        if isinstance(positions, range):
            return [self[position] for position in positions]
        part = self._bytes[self._limits[positions] + self._skip : self._limits[positions + 1] - self._gap]
        return part.tobytes().decode("utf-8", "surrogateescape")


class ChosenNames(Sequence[str]):
    """Some of a list of names, without a copy of them."""

    def __init__(self, names: Sequence[str], indices: npt.NDArray[np.integer[Any]]) -> None:
        self._names, self._indices = names, indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._names[int(chosen)] for chosen in self._indices[index]]
        return self._names[int(self._indices[index])]
