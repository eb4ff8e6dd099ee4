"""Files in memory (memfd), mapped by several processes so that their pages can be huge.

A view of 150 kB lies in 37 ordinary pages, and a virtual machine's processor reads memory up to 24 times to find one
that has left its cache: from a ring of 128 MiB, copying a view then takes 480 us instead of 30
(benchmarks/RESULTS.md). Linux does not give huge pages to files in memory by itself, but does where it is asked to
(MADV_COLLAPSE, since 6.1), and maps them as such where the mapping begins at a multiple of their size. Elsewhere all
works as well, with ordinary pages.
"""

import ctypes
import mmap
import time

HUGE = 2 << 20
"""Bytes of a huge page."""

_MADV_COLLAPSE = 25  # not named by Python's mmap, nor are these
_MAP_FIXED, _MAP_NORESERVE = 0x10, 0x4000
_PATIENCE = 0.1  # seconds for one huge page, which takes 4 ms on a virtual machine
_FAILED = ctypes.c_void_p(-1).value


class MappedFile:
    """All of a file in memory, as writable bytes that others who map it see.

    Attributes:
        bytes: the file's; what refers to them keeps the mapping.
    """

    def __init__(self, file: int, size: int) -> None:
        self._map, self._begin = _aligned(file, size)
        self._refused = False
        self.bytes = memoryview(self._map)[self._begin : self._begin + size]

    def ask_for_huge(self, begin: int, end: int) -> None:
        """Move the bytes between two multiples of `HUGE` into huge pages, whose memory is taken from the machine now.

        All that was written there stays, also what another process is writing. Linux is not asked again once it has
        refused, or had to move much of the memory to make room.
        """
        for at in range(begin, end - HUGE + 1, HUGE):
            if self._refused:
                return
            self.bytes[at]  # only a page that is there can become part of a huge one
            begun = time.monotonic()
            try:
                self._map.madvise(_MADV_COLLAPSE, self._begin + at, HUGE)
            except OSError:  # an older Linux, or no free memory in one piece
                self._refused = True
            self._refused |= time.monotonic() - begun > _PATIENCE


def whole_pages(size: int) -> int:
    """A file's size rounded up to huge pages, where it fills one at least."""
    return -(-size // HUGE) * HUGE if size >= HUGE else size


def _aligned(file: int, size: int) -> tuple[mmap.mmap, int]:
    """A mapping that holds the file's bytes from a multiple of `HUGE` on, and where in the mapping that is."""
    if size < HUGE:
        return mmap.mmap(file, size), 0
    # Python gives no say in the address: the file takes the place of a part of a larger mapping, which frees both.
    reserved = mmap.mmap(-1, size + HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(reserved))
    begin = -address % HUGE
    place = ctypes.CDLL(None, use_errno=True).mmap
    place.restype = ctypes.c_void_p
    place.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_ssize_t)
    found = place(address + begin, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | _MAP_FIXED, file, 0)
    if found == _FAILED:
        raise OSError(ctypes.get_errno(), "a file in memory cannot be mapped")
    return reserved, begin
