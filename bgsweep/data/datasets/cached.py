"""A dataset whose decoded images are kept in memory, once for all processes of a run, or of a sweep on this machine."""

import hashlib
import struct
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from bgsweep import __version__
from bgsweep.data.cores import memory_limit
from bgsweep.data.datasets.wrappers import Wrapper
from bgsweep.data.sample import Image, ImageDataset, Mask, Sample
from bgsweep.data.sharing import sharing
from bgsweep.errors import warn_once
from bgsweep.images.compositing import Rect
from bgsweep.storage.named_memory import shared_memory
from bgsweep.storage.shared_memory import SharedMemory, memory_key

# Of the memory that the processes of this container or machine may use together.
_SHARE = 0.5
_IMAGE, _MASK, _RECT, _INPAINTED = range(4)
_META = struct.Struct("<4I?")  # three sides of an array, or four of a rectangle; and if there is one


class Cached(Wrapper):
    """A dataset that keeps decoded images, masks and what follows from them; each is decoded once.

    They lie in a `SharedMemory`, which the loader's processes and, within a sweep, those of other trials map. It takes
    at most half of the machine's memory, and leaves a tenth of it free; images beyond that are decoded each time.

    Args:
        dataset: the images.
        mark: tells this dataset from others within a sweep.
    """

    def __init__(self, dataset: ImageDataset, mark: str = "") -> None:
        super().__init__(dataset)
        self._mark = mark
        self._memory: SharedMemory | None = None
        self._opened = False
        self._own: dict[int, Sample] = {}  # where the system has no such memory

    # Decoding the JPEG is 41 % of the time that a MoCo-v2 sample of ImageNet's size takes.
    def __getitem__(self, index: int) -> Sample:
        memory = self._shared()
        if memory is None:
            if index not in self._own:
                self._own[index] = _read_only(self.dataset[index])
            return self._own[index]
        if (found := memory.get(_key(index, _IMAGE))) is not None:
            height, width, _, _, masked = _META.unpack_from(found.meta)
            image = found.data.reshape(height, width, 3)
            return self._sample(memory, index, image, masked, lambda: self.dataset[index])
        sample = self.dataset[index]
        image = sample.image
        masked = sample.load_mask is not None
        if not memory.put(_key(index, _IMAGE), [image], _META.pack(*image.shape, 0, masked)):
            if memory.full:
                warn_once(
                    f"{self.name}: not all decoded images fit into memory, of which data.cache takes at most half; the "
                    "others are decoded each time: set data.resize, or data.cache: false"
                )
            return _read_only(sample)
        kept = memory.get(_key(index, _IMAGE))
        image = sample.image if kept is None else kept.data.reshape(image.shape)
        return self._sample(memory, index, image, masked, lambda: sample)

    def __getstate__(self) -> dict[str, Any]:
        self._shared()
        return {**self.__dict__, "_own": {}}

    def _sample(
        self, memory: SharedMemory, index: int, image: Image, masked: bool, origin: Callable[[], Sample]
    ) -> Sample:
        """A sample whose parts are looked up, and taken from its origin, and kept, where they are not there."""
        name, label = self.ids[index], int(self.labels[index])
        if not masked:
            return Sample(name, _frozen(image), label)
        part = partial(_part, memory, index)
        return Sample(
            name,
            _frozen(image),
            label,
            load_mask=lambda: part(_MASK, lambda: cast(Mask, origin().mask)),
            load_rect=lambda: _rect(memory, index, origin),
            load_inpainted=lambda: part(_INPAINTED, lambda: origin().inpainted_background),
        )

    def _shared(self) -> SharedMemory | None:
        if not self._opened:
            within = sharing()
            name = None if within is None else f"{within.sweep}\0{self._digest()}"
            self._memory, self._opened = _opened(name, len(self)) if name else _memory(None, len(self)), True
        return self._memory

    def _digest(self) -> str:
        total = hashlib.sha256(f"{__version__}\0{self.name}\0{self._mark}\0".encode("utf-8", "surrogateescape"))
        total.update("\0".join(self.ids).encode("utf-8", "surrogateescape"))
        return total.hexdigest()


def _memory(name: str | None, images: int) -> SharedMemory | None:
    return shared_memory(name, int(memory_limit() * _SHARE), 4 * images, evicts=False)


# An actor of several trials may open its images anew.
_opened = lru_cache(maxsize=8)(_memory)


def _key(index: int, part: int) -> bytes:
    return memory_key(f"{index}/{part}")


def _part(memory: SharedMemory, index: int, kind: int, make: Callable[[], npt.NDArray[np.uint8]]) -> Mask:
    found = memory.get(_key(index, kind))
    if found is None:
        made = make()
        shape = (*made.shape, 0)[:3]
        memory.put(_key(index, kind), [made], _META.pack(*shape, 0, True))
        return _frozen(made)
    height, width, channels, _, _ = _META.unpack_from(found.meta)
    return found.data.reshape((height, width, channels) if channels else (height, width))


def _rect(memory: SharedMemory, index: int, origin: Callable[[], Sample]) -> Rect | None:
    found = memory.get(_key(index, _RECT))
    if found is None:
        rect = origin().background_rect
        memory.put(_key(index, _RECT), [], _META.pack(*(rect or (0, 0, 0, 0)), rect is not None))
        return rect
    *edges, there = _META.unpack_from(found.meta)
    return Rect(*edges) if there else None


def _read_only(sample: Sample) -> Sample:
    sample.image.flags.writeable = False
    return sample


def _frozen(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    # A write would show in all later epochs.
    image.flags.writeable = False
    return image
