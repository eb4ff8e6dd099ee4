"""Settings of the memory allocator for images and batches."""

import ctypes
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT = 256 << 20
_MMAP_FROM = 32 << 20  # the most that glibc accepts


@cache
def keep_freed_memory() -> None:
    """Let glibc keep freed memory, up to 256 MiB of it, for the next image instead of returning it to the kernel.

    Otherwise the kernel zeroes fresh pages for each decoded image of half a megabyte, which takes a fifth of the time
    of decoding. Without glibc nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        # Both thresholds: a block above the first is a mapping of its own, which is returned when freed, whatever the
        # second is.
        mallopt(_M_MMAP_THRESHOLD, _MMAP_FROM)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
