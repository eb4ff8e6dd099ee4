"""Memory shared between loader processes and the training process, reused from batch to batch.

torch's loader allocates memory for each batch: the kernel zeroes its pages, and the finished views are copied there.
Together this takes a sixth of the time that making the views does, more with several processes: on a Xeon two of them
made 1.44 times the batches of one, and make 1.68 times as many with this module (benchmarks/RESULTS.md). Here views are
written in place, into a slot that the training process has named as free.
"""

import math
import mmap
import os
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from bgsweep.data.cores import memory_limit, own_share
from bgsweep.data.order import DONOR_BLOCK
from bgsweep.data.sample import Image
from bgsweep.errors import UserError, warn_once

Shape = tuple[int, int, int, int]


class SharedBuffers:
    """Slots for batches, as many as are in use at the same time.

    They are anonymous files (memfd), which vanish with their processes: a killed process leaves nothing in /dev/shm.

    Args:
        sizes: sides of the square views in pixels.
        count: images in a batch.
    """

    def __init__(self, sizes: Sequence[int], count: int) -> None:
        self._shapes = _shapes(sizes, count)
        self._slots: list[_Slot] = []
        self.slot_bytes = sum(map(math.prod, self._shapes))

    def take(self) -> str:
        """Path of a free slot."""
        slot = next((slot for slot in self._slots if slot.idle()), None)
        if slot is None:
            slot = _Slot(self._shapes)
            self._slots.append(slot)
        slot.promised = True
        return slot.path


def map_slot(path: str, sizes: Sequence[int], count: int) -> list[Image]:
    """The arrays that a loader process writes its batch to, one for each view, batch x height x width x RGB."""
    return _arrays(_map(path), _shapes(sizes, count))


def claim_slot(path: str) -> list[Image]:
    """The views that were written to a slot, which is free again once the last reference to them is gone."""
    return _slots[path].lend()


def parts_within(slot_bytes: int, images: int, tasks: int, memory_gb: float | None) -> int:
    """The number of parts that batches are made in, so that what is made ahead fits into the memory for it.

    As many parts as `tasks` are in work or finished at a time. With batches of 4096 images at 224 pixels, 30 whole ones
    take 37 GB; 30 parts of 256 images lie in five batches, 6 GB.

    Args:
        slot_bytes: size of a batch's views.
        images: in a batch.
        tasks: parts that the loader has given out and the training has not taken.
        memory_gb: as set by the user; None: a quarter of this process's share of the machine.

    Raises:
        UserError: not even single blocks of images fit into what the user has set.
    """
    limit = memory_gb * 1e9 if memory_gb is not None else memory_limit() * own_share() / 4
    most = -(-images // DONOR_BLOCK)
    parts = 1
    while (needed := slots_of(tasks, parts) * slot_bytes) > limit and parts < most:
        parts = min(2 * parts, most)
    if needed > limit:
        told = f"{needed / 1e9:.2f} GB for batches made ahead are more than "
        if memory_gb is not None:
            raise UserError(
                f"data.loader_memory_gb: {told}{memory_gb:g}; raise it, or lower data.loader_workers or "
                "training.batch_size"
            )
        warn_once(
            f"{told}a quarter of this process's memory, {limit / 1e9:.2f} GB; lower data.loader_workers or "
            "training.batch_size, or say by data.loader_memory_gb how much there is"
        )
    return parts


def slots_of(tasks: int, parts: int) -> int:
    """The most batches that are in memory: made ahead, in training, and about to be released."""
    return -(-tasks // parts) + (2 if parts == 1 else 3)


class _Slot:
    def __init__(self, shapes: list[Shape]) -> None:
        # No file in /dev/shm, whose size is limited (64 MB in containers by default).
        file = os.memfd_create("bgsweep")
        weakref.finalize(self, os.close, file)
        os.ftruncate(file, sum(map(math.prod, shapes)))
        self._shapes, self._memory = shapes, mmap.mmap(file, 0)
        self._lent: list[weakref.ref[Image]] = []
        self.promised = False
        # Any process of the same user can open the file by this path, so that no descriptor has to be sent to it.
        self.path = f"/proc/{os.getpid()}/fd/{file}"
        _slots[self.path] = self

    def idle(self) -> bool:
        # By weak references: training may hold a batch's views longer than the loop that asked for them.
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
def _map(path: str) -> mmap.mmap:
    # Mapped once for each process: a new mapping would fault in all of its pages again.
    with Path(path).open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)
