"""The `SharedMemory` of a name, which processes of one user on a machine find by a small file that lists its users.

A newcomer opens the memory through any process of the list that is alive; where none is, it makes a new one.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bgsweep.storage.file_lock import try_lock
from bgsweep.storage.shared_memory import PEERS, SharedMemory, make_memory, reopened
from bgsweep.storage.uri import cache_folder

_ATTACH_PATIENCE = 5.0  # seconds


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
    make = partial(make_memory, capacity, entries, evicts)
    try:
        return make() if name is None else _found_or_made(name, make)
    except (OSError, ValueError):  # no file descriptor, address space or memory left
        return None


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
            opened = reopened(path, bytes.fromhex(token))
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
