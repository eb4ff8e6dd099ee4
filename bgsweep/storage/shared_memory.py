"""Memory that processes of one user on a machine share: bytes by key, written once and read by all.

A `SharedMemory` is an anonymous file (memfd), so that it needs no room in /dev/shm, which containers limit to 64 MB,
and vanishes with its last process, however that ends. `named_memory` says how processes find one.

No process depends on another: the kernel releases the lock of a killed one, an entry counts once all of it is written,
and who does not get the lock within a moment goes on without writing. Readers take no lock. Each entry of the table has
a number that is odd while it is written, and another one afterwards: what was read between two looks at the same even
number is whole. The head of a ring moves before bytes are overwritten: what was copied before a look at it, and is less
than a capacity behind, is whole too. That holds where a processor shows one's stores, and does one's loads, in their
order (x86-64); elsewhere readers take the lock as well.
"""

import contextlib
import hashlib
import os
import platform
import secrets
import struct
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bgsweep.storage.file_lock import FileLock
from bgsweep.storage.huge_pages import HUGE, MappedFile, whole_pages

META_BYTES = 56
KEY_BYTES = 16
PEERS = 64

_FILE, _MAGIC = "bgsweep-shared", b"bgsweep3"
_HEADER = struct.Struct("<8s16sQQ?")  # magic, token, capacity, buckets, and if the oldest bytes make room
_HEAD_AT, _PEERS_AT, _TABLE_AT = 64, 512, 4096
_PEER, _CLAIM = struct.Struct("<QdQq"), struct.Struct("<Qd")
# Its number, its key, the first byte, the size, and what the caller says of them.
_ENTRY = struct.Struct(f"<Q{KEY_BYTES}sQQ{META_BYTES}s")
_KEY_AT = 8
_NO_KEY = bytes(KEY_BYTES)
_ALIGNED, _PROBES = 64, 16
_CHECKED_EVERY = 64 << 20
_KEPT_FREE = 0.1  # of the machine's memory
_IN_ORDER = platform.machine() in ("x86_64", "AMD64")

Bytes = npt.NDArray[np.uint8]


class Found(NamedTuple):
    """An entry: its bytes, read-only where they are not a copy, and what was noted of them."""

    data: Bytes
    meta: bytes


class _Place(NamedTuple):
    """The bytes of an entry: the first of them, counted over all that were ever written, and their number."""

    start: int
    size: int
    meta: bytes


def memory_key(text: str) -> bytes:
    """A key for what a text says."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:KEY_BYTES]


class SharedMemory:
    """Bytes by key. `shared_memory` opens one; a pickle opens it in a process that lives with this one.

    Attributes:
        evicts: the oldest bytes make room for new ones, and `get` copies; else `put` refuses once it is full.
        full: `put` has refused bytes.
    """

    def __init__(self, file: int) -> None:
        weakref.finalize(self, os.close, file)
        self._mapped = MappedFile(file, os.fstat(file).st_size)
        self._map = self._mapped.bytes
        magic, self.token, self.capacity, self._buckets, self.evicts = _HEADER.unpack_from(self._map)
        if magic != _MAGIC:
            raise ValueError("not a shared memory")
        self._data_at = _data_at(self._buckets, self.capacity)
        self._bytes = np.frombuffer(self._map, np.uint8)
        # Each element is loaded and stored by one instruction.
        self._numbers = self._map.cast("Q")
        self._read_only = self._bytes.view()
        self._read_only.flags.writeable = False
        self._lock = FileLock(file)
        self._checked = 0
        self.full = False
        self.path = f"/proc/{os.getpid()}/fd/{file}"

    def __reduce__(self) -> tuple[Any, ...]:
        return reopened, (self.path, self.token)

    def get(self, key: bytes) -> Found | None:
        """The entry of a key; None where there is none, or it has made room for others."""
        with self._reading() as possible:
            place = self._find(key) if possible else None
            if place is None:
                return None
            data: Bytes = self._at(place)
            if self.evicts:
                data = data.copy()
                if not self._still_there(place.start):
                    return None
            return Found(data, place.meta)

    def read_into(self, key: bytes, target: Bytes) -> bytes | None:
        """Copy the bytes of a key; give what was noted of them, None as of `get`. The target may then hold anything."""
        with self._reading() as possible:
            place = self._find(key) if possible else None
            if place is None or place.size != target.size:
                return None
            target.reshape(-1)[:] = self._at(place)
            return place.meta if self._still_there(place.start) else None

    def put(self, key: bytes, parts: Sequence[npt.NDArray[Any]], meta: bytes = b"") -> bool:
        """Write an entry, its parts one after the other; True if it is there now, whoever has written it."""
        with self._lock.tried() as held:
            return held and self._put(key, parts, meta)

    def claim(self, key: bytes, owner: int, seconds: float) -> bool:
        """Take the work of a key; False while another owner took it less than so many seconds ago."""
        if _IN_ORDER and self._taken(key, owner, seconds):
            return False
        with self._lock.tried() as held:
            if not held:
                return True
            if self._taken(key, owner, seconds):
                return False
            self._enter(key, self._head(), 0, _CLAIM.pack(owner, time.monotonic()))
            return True

    def release(self, key: bytes, owner: int) -> None:
        """Give up a claim, so that others may take the work."""
        with self._lock.tried() as held:
            if held and (place := self._find(key)) is not None and _CLAIM.unpack_from(place.meta)[0] == owner:
                self._enter(key, self._head(), 0, _CLAIM.pack(owner, 0.0))

    def meet(self, peer: int, mark: int, progress: int, seconds: float) -> list[tuple[int, int]]:
        """Say where a peer is; give the marks and the progress of others that did so in the last seconds."""
        now, others, own = time.monotonic(), [], None
        with self._lock.tried() as held:
            if not held:
                return []
            for at in range(_PEERS_AT, _PEERS_AT + PEERS * _PEER.size, _PEER.size):
                name, seen, other_mark, other_progress = _PEER.unpack_from(self._map, at)
                if name == peer or now - seen > seconds:
                    own = at if own is None or name == peer else own
                else:
                    others.append((other_mark, other_progress))
            if own is not None:
                _PEER.pack_into(self._map, own, peer, now, mark, progress)
        return others

    def _put(self, key: bytes, parts: Sequence[npt.NDArray[Any]], meta: bytes) -> bool:
        size = sum(part.nbytes for part in parts)
        if size > self.capacity // 4 if self.evicts else self.full:
            return False
        if self._find(key) is not None:
            return True
        start = self._reserve(size)
        if start is None:
            self.full = True
            return False
        # Under the lock: a process that was stopped here must not write once its bytes are another's.
        at = self._data_at + start % self.capacity
        for part in parts:
            self._bytes[at : at + part.nbytes] = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
            at += part.nbytes
        return self._enter(key, start, size, meta)

    def _taken(self, key: bytes, owner: int, seconds: float) -> bool:
        place = self._find(key)
        if place is None:
            return False
        other, since = _CLAIM.unpack_from(place.meta)
        return bool(other != owner and time.monotonic() - since < seconds)

    def _at(self, place: _Place) -> Bytes:
        begin = self._data_at + place.start % self.capacity
        return self._read_only[begin : begin + place.size]

    def _still_there(self, start: int) -> bool:
        return not self.evicts or self._head() - start <= self.capacity

    def _head(self) -> int:
        """The number of bytes ever reserved, those of evicted entries included."""
        return self._numbers[_HEAD_AT // 8]

    def _reserve(self, size: int) -> int | None:
        head = self._head()
        start = -(-head // _ALIGNED) * _ALIGNED
        if start % self.capacity + size > self.capacity:  # entries do not wrap around
            start = -(-start // self.capacity) * self.capacity
        if not self.evicts and (start + size > self.capacity or not self._room_for(start + size)):
            return None
        # Before the bytes are written: a reader of those that were there must notice.
        self._numbers[_HEAD_AT // 8] = start + size
        if head < self.capacity and self.capacity >= HUGE:  # the first bytes of a huge page
            begin, end = (-(-at // HUGE) * HUGE for at in (head, min(start + size, self.capacity)))
            self._mapped.ask_for_huge(self._data_at + begin, self._data_at + end)
        return start

    def _room_for(self, until: int) -> bool:
        if until // _CHECKED_EVERY != self._checked:
            self._checked = until // _CHECKED_EVERY
            return memory_is_free()
        return True

    def _first_entry(self, key: bytes) -> int:
        """The place of the first of the entries that may be a key's."""
        return _TABLE_AT + int.from_bytes(key[:8], "little") % int(self._buckets) * _ENTRY.size

    def _find(self, key: bytes) -> _Place | None:
        first = self._first_entry(key)
        entries = bytes(self._map[first : first + _PROBES * _ENTRY.size])
        at = entries.find(key)
        while at % _ENTRY.size != _KEY_AT:  # nowhere, or where other bytes happen to be the same
            if at < 0:
                return None
            at = entries.find(key, at + 1)
        at += first - _KEY_AT
        before = self._numbers[at // 8]
        _, there, *place = _ENTRY.unpack_from(self._map, at)
        whole = there == key and self._numbers[at // 8] == before and not before % 2
        found = _Place(*place)
        return found if whole and self._still_there(found.start) else None

    def _enter(self, key: bytes, start: int, size: int, meta: bytes) -> bool:
        oldest, at_oldest = None, -1
        first = self._first_entry(key)
        for at in range(first, first + _PROBES * _ENTRY.size, _ENTRY.size):
            number, there, begun, _, _ = _ENTRY.unpack_from(self._map, at)
            if there in (_NO_KEY, key):
                oldest, at_oldest = 0, at
                break
            if number % 2 or (self.evicts and (oldest is None or begun < oldest)):
                oldest, at_oldest = 0 if number % 2 else begun, at
        if oldest is None:
            return False
        # What a killed process has begun keeps its odd number, and is no entry.
        number = self._numbers[at_oldest // 8] | 1
        self._numbers[at_oldest // 8] = number
        _ENTRY.pack_into(self._map, at_oldest, number, key, start, size, meta)
        self._numbers[at_oldest // 8] = number + 1
        return True

    def _reading(self) -> contextlib.AbstractContextManager[bool]:
        """A context in which what others write is seen in its order; gives False where that cannot be had."""
        return contextlib.nullcontext(True) if _IN_ORDER else self._lock.tried()


def memory_is_free() -> bool:
    """True while a tenth of the machine's memory is free, or can be freed."""
    try:
        text = Path("/proc/meminfo").read_text()
        total, available = (int(text.split(f"{name}:")[1].split()[0]) for name in ("MemTotal", "MemAvailable"))
    except (OSError, ValueError, IndexError):
        return True
    return available > _KEPT_FREE * total


def _data_at(buckets: int, capacity: int) -> int:
    page = HUGE if capacity >= HUGE else 4096
    return -(-(_TABLE_AT + (buckets + _PROBES) * _ENTRY.size) // page) * page


def make_memory(capacity: int, entries: int, evicts: bool) -> SharedMemory:
    """A new memory; see `named_memory.shared_memory` for the arguments. Raises OSError where there is no room."""
    buckets = max(64, 2 * entries)
    capacity = whole_pages(-(-capacity // _ALIGNED) * _ALIGNED)
    file = os.memfd_create(_FILE)
    try:
        os.ftruncate(file, _data_at(buckets, capacity) + capacity)
        os.pwrite(file, _HEADER.pack(_MAGIC, secrets.token_bytes(16), capacity, buckets, evicts), 0)
    except OSError:
        os.close(file)
        raise
    memory = SharedMemory(file)
    memory._mapped.ask_for_huge(0, memory._data_at)  # the table, of which any place may be looked at next
    return memory


def reopened(path: str, token: bytes) -> SharedMemory | None:
    """The memory that another process has open at a path; None if it has ended, or has another one there."""
    try:
        if not str(Path(path).readlink()).startswith(f"/memfd:{_FILE}"):  # another process has this number now
            return None
        # Opened anew, since a lock belongs to what was opened.
        opened = SharedMemory(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except (OSError, ValueError, struct.error):
        return None
    return opened if opened.token == token else None
