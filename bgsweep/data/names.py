"""A list of millions of names in little memory."""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import overload

import numpy as np


class Names(Sequence[str]):
    """An immutable list of strings: one block of bytes and 8 bytes for each, where a list takes about 60 for each.

    Forked processes share it with their parent for good: reading a list of strings writes reference counts, and so
    copies its pages.
    """

    def __init__(self, names: Iterable[str]) -> None:
        # File names on Linux are bytes that need not be UTF-8.
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        self._text = b"".join(encoded)
        self._bounds = np.fromiter(accumulate(map(len, encoded), initial=0), np.int64, len(encoded) + 1)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        positions = range(len(self))[index]
        if isinstance(positions, range):
            return [self[position] for position in positions]
        return self._text[self._bounds[positions] : self._bounds[positions + 1]].decode("utf-8", "surrogateescape")
