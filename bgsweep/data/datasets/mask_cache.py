"""A compressed cache of decoded masks: a PNG takes ten times as long to decode as zstd (340 us, 30 us)."""

import threading
from collections.abc import Callable

import numpy as np
import zstandard

from bgsweep.data.sample import Mask
from bgsweep.images.compositing import Rect, largest_background_rectangle

LIMIT = 32 << 20
# Bytes that a compressed mask takes, about, with its entry.
_MASK = 1_200


class MaskCache:
    """Masks as compressed bytes, about 1 KB each, and their largest background rectangles, by the image's number.

    Holds about `limit` bytes of masks; masks beyond that are decoded each time. A copy in another process starts empty.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._masks: dict[int, tuple[bytes, tuple[int, ...]]] = {}
        self._rects: dict[int, Rect | None] = {}
        self._held = 0
        self._lock = threading.Lock()  # zstandard's objects must not be used by two threads at once
        self._pack, self._unpack = zstandard.ZstdCompressor(level=1), zstandard.ZstdDecompressor()

    @classmethod
    def for_images(cls, count: int) -> "MaskCache":
        """The cache for so many images; an empty one if it could not hold them all.

        Each of a node's 100 loader processes has its own. Of a million images it would hold a fortieth, and so save
        next to nothing.
        """
        return cls(LIMIT if count * _MASK <= LIMIT else 0)

    def mask(self, index: int, decode: Callable[[], Mask]) -> Mask:
        if index in self._masks:
            packed, shape = self._masks[index]
            with self._lock:
                content = self._unpack.decompress(packed)
            return np.frombuffer(content, np.uint8).reshape(shape)
        mask = decode()
        if self._held < self.limit:
            # Compressed, because a decoded mask of 500 x 375 px has 190 KB.
            with self._lock:
                packed = self._pack.compress(mask.tobytes())
                self._masks[index] = packed, mask.shape
                self._held += len(packed)
        return mask

    def rect(self, index: int, decode: Callable[[], Mask]) -> Rect | None:
        """`compositing.largest_background_rectangle`, searched once."""
        if index in self._rects:
            return self._rects[index]
        rect = largest_background_rectangle(self.mask(index, decode))
        # Kept only beside a kept mask, so that the limit bounds the rectangles too.
        if index in self._masks:
            self._rects[index] = rect
        return rect

    def __reduce__(self) -> tuple[type["MaskCache"], tuple[int]]:
        # A filled cache would send up to 64 MiB to each process of the loader.
        return MaskCache, (self.limit,)
