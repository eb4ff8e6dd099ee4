"""Memory that processes of one user on a machine share: bytes by key, written once and read by all.

A `SharedMemory` is an anonymous file (memfd), so that it needs no room in /dev/shm, which containers limit to 64 MB,
and vanishes with its last process, however that ends. Processes find it by a name, under which a small file lists those
that have it open; a newcomer opens it through any of them that is alive.

No process depends on another: the kernel releases the lock of a killed one, an entry counts once all of it is written,
and who does not get the lock within a moment goes on without the memory.
"""

import contextlib
import fcntl
import hashlib
import mmap
import os
import secrets
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bgsweep.storage.uri import cache_folder

META_BYTES = 64
KEY_BYTES = 16
PEERS = 64

_FILE, _MAGIC = "bgsweep-shared", b"bgsweep1"
_HEADER = struct.Struct("<8s16sQQ?")  # magic, token, capacity, buckets, and if the oldest bytes make room
_HEAD_AT, _PEERS_AT, _TABLE_AT = 64, 512, 4096
_HEAD, _PEER, _CLAIM = struct.Struct("<Q"), struct.Struct("<QdQq"), struct.Struct("<Qd")
_PLACE = struct.Struct(f"<QQ{META_BYTES}s")  # first byte, size, and what the caller says of them
_ENTRY_BYTES = KEY_BYTES + _PLACE.size
_NO_KEY = bytes(KEY_BYTES)
_ALIGNED, _PROBES = 64, 16
_PATIENCE, _ATTACH_PATIENCE, _AWAY = 0.2, 5.0, 5.0  # seconds
_CHECKED_EVERY = 64 << 20
_KEPT_FREE = 0.1  # of the machine's memory

Bytes = npt.NDArray[np.uint8]


class Found(NamedTuple):
    """An entry: its bytes, read-only where they are not a copy, and what was noted of them."""

    data: Bytes
    meta: bytes


class SharedMemory:
    """Bytes by key. `shared_memory` opens one; a pickle opens it in a process that lives with this one.

    Attributes:
        evicts: the oldest bytes make room for new ones, and `get` copies; else `put` refuses once it is full.
        full: `put` has refused bytes.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        weakref.finalize(self, os.close, file)
        self._map = mmap.mmap(file, 0)
        magic, self.token, self.capacity, self._buckets, self.evicts = _HEADER.unpack_from(self._map)
        if magic != _MAGIC:
            raise ValueError("not a shared memory")
        self._data_at = _data_at(self._buckets)
        self._bytes = np.frombuffer(self._map, np.uint8)
        self._read_only = self._bytes.view()
        self._read_only.flags.writeable = False
        # A lock of the file excludes other processes, but not other threads of this one.
        self._thread_lock = threading.Lock()
        self._away_until = 0.0
        self._checked = 0
        self.full = False
        self._process = os.getpid()
        self.path = f"/proc/{self._process}/fd/{file}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.path, self.token)

    def get(self, key: bytes) -> Found | None:
        """The entry of a key; None where there is none, or it has made room for others."""
        with self._locked() as held:
            place = self._find(key) if held else None
        if place is None:
            return None
        start, size, meta = place
        begin = self._data_at + start % self.capacity
        data: Bytes = self._read_only[begin : begin + size]
        if self.evicts:
            data = data.copy()
            if not self._still_there(start):
                return None
        return Found(data, meta)

    def read_into(self, key: bytes, target: Bytes) -> bytes | None:
        """Copy the bytes of a key; give what was noted of them, None as of `get`. The target may then hold anything."""
        with self._locked() as held:
            place = self._find(key) if held else None
        if place is None or place[1] != target.size:
            return None
        start, size, meta = place
        begin = self._data_at + start % self.capacity
        target.reshape(-1)[:] = self._read_only[begin : begin + size]
        return None if self.evicts and not self._still_there(start) else meta

    def put(self, key: bytes, parts: Sequence[npt.NDArray[Any]], meta: bytes = b"") -> bool:
        """Write an entry, its parts one after the other; True if it is there now, whoever has written it."""
        size = sum(part.nbytes for part in parts)
        if size > self.capacity // 4 if self.evicts else self.full:
            return False
        with self._locked() as held:
            if not held:
                return False
            if self._find(key) is not None:
                return True
            start = self._reserve(size)
            if start is None:
                self.full = True
                return False
            at = self._data_at + start % self.capacity
            for part in parts:
                self._bytes[at : at + part.nbytes] = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
                at += part.nbytes
            return self._enter(key, start, size, meta)

    def claim(self, key: bytes, owner: int, seconds: float) -> bool:
        """Take the work of a key; False while another owner took it less than so many seconds ago."""
        with self._locked() as held:
            if not held:
                return True
            if (place := self._find(key)) is not None:
                other, since = _CLAIM.unpack_from(place[2])
                if other != owner and time.monotonic() - since < seconds:
                    return False
            self._enter(key, self._head(), 0, _CLAIM.pack(owner, time.monotonic()))
            return True

    def release(self, key: bytes, owner: int) -> None:
        """Give up a claim, so that others may take the work."""
        with self._locked() as held:
            if held and (place := self._find(key)) is not None and _CLAIM.unpack_from(place[2])[0] == owner:
                self._enter(key, self._head(), 0, _CLAIM.pack(owner, 0.0))

    def meet(self, peer: int, mark: int, progress: int, seconds: float) -> list[tuple[int, int]]:
        """Say where a peer is; give the marks and the progress of others that did so in the last seconds."""
        now, others, own = time.monotonic(), [], None
        with self._locked() as held:
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

    def _still_there(self, start: int) -> bool:
        # Under the lock, so that all that was written before is seen by this processor too.
        with self._locked() as held:
            return held and self._head() - start <= self.capacity

    def _head(self) -> int:
        """The number of bytes ever reserved, those of evicted entries included."""
        return int(_HEAD.unpack_from(self._map, _HEAD_AT)[0])

    def _reserve(self, size: int) -> int | None:
        head = self._head()
        start = -(-head // _ALIGNED) * _ALIGNED
        if start % self.capacity + size > self.capacity:  # entries do not wrap around
            start = -(-start // self.capacity) * self.capacity
        if not self.evicts and (start + size > self.capacity or not self._room_for(start + size)):
            return None
        # Before the bytes are written: a reader of those that were there must notice.
        _HEAD.pack_into(self._map, _HEAD_AT, start + size)
        return start

    def _room_for(self, until: int) -> bool:
        if until // _CHECKED_EVERY != self._checked:
            self._checked = until // _CHECKED_EVERY
            return memory_is_free()
        return True

    def _entries_of(self, key: bytes) -> Iterator[int]:
        first = int.from_bytes(key[:8], "little") % self._buckets
        for probe in range(_PROBES):
            yield _TABLE_AT + (first + probe) % self._buckets * _ENTRY_BYTES

    def _find(self, key: bytes) -> tuple[int, int, bytes] | None:
        for at in self._entries_of(key):
            there = self._map[at : at + KEY_BYTES]
            if there == _NO_KEY:
                return None
            if there == key:
                place = _PLACE.unpack_from(self._map, at + KEY_BYTES)
                return place if not self.evicts or self._head() - place[0] <= self.capacity else None
        return None

    def _enter(self, key: bytes, start: int, size: int, meta: bytes) -> bool:
        oldest, at_oldest = None, -1
        for at in self._entries_of(key):
            there = self._map[at : at + KEY_BYTES]
            if there in (_NO_KEY, key):
                oldest, at_oldest = 0, at
                break
            begun = _PLACE.unpack_from(self._map, at + KEY_BYTES)[0]
            if self.evicts and (oldest is None or begun < oldest):
                oldest, at_oldest = begun, at
        if oldest is None:
            return False
        # The key last: what a killed process has begun is no entry.
        self._map[at_oldest : at_oldest + KEY_BYTES] = _NO_KEY
        _PLACE.pack_into(self._map, at_oldest + KEY_BYTES, start, size, meta)
        self._map[at_oldest : at_oldest + KEY_BYTES] = key
        return True

    @contextlib.contextmanager
    def _locked(self) -> Iterator[bool]:
        """A context that one thread of the machine enters at a time; gives False where others do not leave it."""
        # A forked process shares the lock with its parent, and so cannot exclude it.
        if time.monotonic() < self._away_until or os.getpid() != self._process:
            yield False
            return
        if not self._thread_lock.acquire(timeout=_PATIENCE):
            yield False
            return
        try:
            held = try_lock(self._file, _PATIENCE)
            if not held:  # its holder was stopped: no process waits for that again and again
                self._away_until = time.monotonic() + _AWAY
            try:
                yield held
            finally:
                if held:
                    fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:
            self._thread_lock.release()


def shared_memory(name: str | None, capacity: int, entries: int, evicts: bool) -> SharedMemory | None:
    """The memory of a name, which is made if no process has it; None where this system has none.

    Args:
        name: any text; None for one that only this process and those that it sends it to can have.
        capacity: bytes, which are taken from the machine as they are written.
        entries: the most that are expected.
        evicts: see `SharedMemory`.
    """
    if not hasattr(os, "memfd_create"):
        return None
    make = partial(_made, capacity, entries, evicts)
    try:
        return make() if name is None else _found_or_made(name, make)
    except (OSError, ValueError):  # no file descriptor, address space or memory left
        return None


def memory_is_free() -> bool:
    """True while a tenth of the machine's memory is free, or can be freed."""
    try:
        text = Path("/proc/meminfo").read_text()
        total, available = (int(text.split(f"{name}:")[1].split()[0]) for name in ("MemTotal", "MemAvailable"))
    except (OSError, ValueError, IndexError):
        return True
    return available > _KEPT_FREE * total


def try_lock(file: int, patience: float) -> bool:
    """Lock a file; False if another process holds the lock for so many seconds."""
    until = 0.0
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            now = time.monotonic()
            until = until or now + patience
            if now > until:
                return False
            time.sleep(0.0001)


def _data_at(buckets: int) -> int:
    return -(-(_TABLE_AT + buckets * _ENTRY_BYTES) // 4096) * 4096


def _made(capacity: int, entries: int, evicts: bool) -> SharedMemory:
    buckets = max(64, 2 * entries)
    capacity = -(-capacity // _ALIGNED) * _ALIGNED
    file = os.memfd_create(_FILE)
    try:
        os.ftruncate(file, _data_at(buckets) + capacity)
        os.pwrite(file, _HEADER.pack(_MAGIC, secrets.token_bytes(16), capacity, buckets, evicts), 0)
    except OSError:
        os.close(file)
        raise
    return SharedMemory(file)


def _reopened(path: str, token: bytes) -> SharedMemory | None:
    try:
        if not str(Path(path).readlink()).startswith(f"/memfd:{_FILE}"):  # another process has this number now
            return None
        # Opened anew, since a lock belongs to what was opened.
        opened = SharedMemory(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except (OSError, ValueError, struct.error):
        return None
    return opened if opened.token == token else None


def _found_or_made(name: str, make: Callable[[], SharedMemory]) -> SharedMemory:
    users = _users_file(name)
    users.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(users.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not try_lock(lock, _ATTACH_PATIENCE):
            return make()
        opened, living = _of_users(users)
        if opened is None:
            opened, living = make(), []
            _remove_left(users.parent, users)
        users.write_text("".join(f"{path} {opened.token.hex()}\n" for path in [*living[-PEERS:], opened.path]))
        return opened
    finally:
        os.close(lock)


def _of_users(users: Path) -> tuple[SharedMemory | None, list[str]]:
    """The memory that processes in a list have open, and the paths at which it is found."""
    found: SharedMemory | None = None
    living = []
    with contextlib.suppress(OSError, ValueError):
        for path, token in (line.split() for line in users.read_text().splitlines()):
            opened = _reopened(path, bytes.fromhex(token))
            if opened is not None and (found is None or opened.token == found.token):
                found = found or opened
                living.append(path)
    return found, living


def _users_file(name: str) -> Path:
    # A home folder may be that of several machines.
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    mark = hashlib.sha256(f"{boot}/{os.getuid()}/{name}".encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return cache_folder() / "memory" / f"{mark}.users"


def _remove_left(folder: Path, own: Path) -> None:
    """Remove the lists of memories that no process has any more, a day after their last one came."""
    for path in folder.glob("*.users"):
        with contextlib.suppress(OSError):
            if path != own and time.time() - path.stat().st_mtime > 86_400 and _of_users(path)[0] is None:
                path.unlink()
                path.with_suffix(".lock").unlink()
