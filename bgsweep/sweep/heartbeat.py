"""Signs between a sweep's driver and other processes: that it is alive, and that it should stop."""

import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bgsweep.errors import one_line
from bgsweep.storage.atomic import write_whole
from bgsweep.sweep.ownership import owner_of
from bgsweep.tracking.provenance import owner_lives

HEARTBEAT_FILE = "pulse"
INTERVAL = 3.0
"""Seconds between two beats."""

LOOK, WATCH = 12.0, 60.0
"""Seconds without a beat after which a driver elsewhere is shown as dead, and after which its sweep may be taken."""

_FORGOTTEN = 3600.0
_log = logging.getLogger(__name__)


class Heartbeat:
    """A context in which a counter in the sweep's folder rises every few seconds."""

    def __init__(self, folder: Path, token: int = 0) -> None:
        self._path = folder / HEARTBEAT_FILE
        self._token, self._count = token, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._write()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if _token_of(self._path) in (None, self._token):  # not the beat of a driver that has taken over
            self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        self._count += 1
        write_whole(self._path, f"{self._token} {self._count}\n".encode(), durable=False)

    def _beat(self) -> None:
        told = False
        while not self._over.wait(INTERVAL):
            try:
                if _token_of(self._path) not in (None, self._token):
                    return  # another driver has taken over, which the next write of the journal finds
                self._write()
                told = False
            except OSError as error:  # a full disk, a share that is gone for a while: the driver goes on meanwhile
                if not told:
                    _log.warning(
                        "%s: the sweep's sign of life cannot be written: %s; it is tried again",
                        self._path,
                        one_line(error),
                    )
                told = True


def _token_of(path: Path) -> int | None:
    """The token in a heartbeat; None if there is none, or only that of an older version."""
    try:
        return int(path.read_text(encoding="utf-8").split()[0])
    except (OSError, ValueError, IndexError):
        return None


def alive(
    folder: Path, manifest: dict[str, Any], pulse: Callable[[], str | None] | None = None, seconds: float = LOOK
) -> bool:
    """True if a sweep has a running driver, on this machine or on another one that shares the store.

    A driver elsewhere is alive if its counter is seen to rise. No clocks are compared, but for one thing: what did not
    change for an hour is not watched where only the shown state depends on it.

    Args:
        pulse: reads the heartbeat anew, where ``folder`` is only a copy.
        seconds: time to watch the counter.
    """
    owner = owner_of(folder, manifest)
    if closed_properly(folder):
        return False
    if owner.get("bgsweep.host") == socket.gethostname():
        return owner_lives(owner)
    path = folder / HEARTBEAT_FILE
    if seconds <= LOOK and time.time() - path.stat().st_mtime > _FORGOTTEN:
        return False
    read = pulse or (lambda: pulse_in(folder))
    first, until = pulse_in(folder), time.monotonic() + seconds
    while time.monotonic() < until:
        now = read()
        if now is None:  # closed while it was watched
            return False
        if now != first:
            return True
        time.sleep(min(0.5, seconds / 4))
    return False


def pulse_in(folder: Path) -> str | None:
    """The heartbeat in a folder, which differs after each beat; None if there is none."""
    path = folder / HEARTBEAT_FILE
    try:
        # An older version's is empty, and only its time changes.
        return path.read_text(encoding="utf-8") or str(path.stat().st_mtime_ns)
    except OSError:
        return None


def closed_properly(folder: Path) -> bool:
    """True if the last driver could clean up, as after Ctrl-C or an error; a killed one leaves its heartbeat file."""
    return not (folder / HEARTBEAT_FILE).exists()


def stop_file(folder: Path) -> Path:
    """The file whose existence asks the driver to end the sweep."""
    return folder / "stop"
