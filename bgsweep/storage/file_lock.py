"""A lock of a file, which the kernel releases for a killed process, and for which nobody waits long."""

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator

_PATIENCE, _AWAY = 0.2, 5.0  # seconds


class FileLock:
    """A lock that one thread of the machine holds at a time.

    Args:
        file: a descriptor that this process has opened itself, since a lock belongs to what was opened.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        # A lock of the file excludes other processes, but not other threads of this one.
        self._thread_lock = threading.Lock()
        self._away_until = 0.0
        self._process = os.getpid()

    @contextlib.contextmanager
    def tried(self) -> Iterator[bool]:
        """A context with the lock (True), or without it (False) where others do not release it within .2 s.

        After such a wait it is not tried again for five seconds.
        """
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
