"""Memory that a loader's processes share with the one that trains, used again for batch after batch.

torch's loader gives each batch memory of its own: the kernel zeroes its pages, and the pictures are copied there once
they are made, which together takes a sixth of the time that making them does, and more where several processes do so.
Here they are made in their place, and who trains says beforehand which place is free.
"""

import math
import mmap
import os
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from bgsweep.data.sample import Image

Shape = tuple[int, int, int, int]


class SharedBuffers:
    """Places for batches, as many as are in use at the same time; without names, so that no killed process leaves any.

    Args:
        sizes: sides of the square views in pixels.
        count: photographs in a batch.
    """

    def __init__(self, sizes: Sequence[int], count: int) -> None:
        self._shapes = _shapes(sizes, count)
        self._slots: list[_Slot] = []

    def take(self) -> str:
        """The address of a free place."""
        slot = next((slot for slot in self._slots if slot.idle()), None)
        if slot is None:
            slot = _Slot(self._shapes)
            self._slots.append(slot)
        slot.promised = True
        return slot.address


def pictures_at(address: str, sizes: Sequence[int], count: int) -> list[Image]:
    """Where a loader's process writes its batch: an array for each view, batch x height x width x RGB."""
    return _arrays(_mapped(address), _shapes(sizes, count))


def arrived(address: str) -> list[Image]:
    """The views that were written to a place; it is free again once the last thing that uses them is gone."""
    return _slots[address].lend()


class _Slot:
    def __init__(self, shapes: list[Shape]) -> None:
        file = os.memfd_create("bgsweep")
        weakref.finalize(self, os.close, file)
        os.ftruncate(file, sum(map(math.prod, shapes)))
        self._shapes, self._memory = shapes, mmap.mmap(file, 0)
        self._lent: list[weakref.ref[Image]] = []
        self.promised = False
        self.address = f"/proc/{os.getpid()}/fd/{file}"
        _slots[self.address] = self

    def idle(self) -> bool:
        return not self.promised and all(array() is None for array in self._lent)

    def lend(self) -> list[Image]:
        arrays = _arrays(self._memory, self._shapes)
        self._lent, self.promised = [weakref.ref(array) for array in arrays], False
        return arrays


_slots: weakref.WeakValueDictionary[str, _Slot] = weakref.WeakValueDictionary()


def _shapes(sizes: Sequence[int], count: int) -> list[Shape]:
    return [(count, size, size, 3) for size in sizes]


def _arrays(memory: mmap.mmap, shapes: list[Shape]) -> list[Image]:
    arrays, end = [], 0
    for shape in shapes:
        begin, end = end, end + math.prod(shape)
        arrays.append(np.frombuffer(memory, np.uint8, end - begin, begin).reshape(shape))
    return arrays


@cache
def _mapped(address: str) -> mmap.mmap:
    with Path(address).open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)
