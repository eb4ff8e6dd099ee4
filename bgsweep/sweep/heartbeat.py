"""Signs between a sweep's driver and other processes: that it is alive, and that it should stop."""

import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bgsweep.tracking.provenance import owner_lives

HEARTBEAT_FILE = "pulse"
_STOP_FILE = "stop"
_INTERVAL, _DEAD_AFTER = 5.0, 60.0  # seconds


class Heartbeat:
    """A context in which a file in the sweep's folder is touched every few seconds."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / HEARTBEAT_FILE
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._path.touch()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._over.wait(_INTERVAL):
            self._path.touch()


def alive(folder: Path, manifest: dict[str, Any]) -> bool:
    """True if a sweep has a running driver, on this machine or on another one that shares the folder."""
    if manifest["owner"]["bgsweep.host"] == socket.gethostname():
        # The process alone proves nothing: in a notebook it lives on after the sweep.
        return owner_lives(manifest["owner"]) and not closed_properly(folder)
    path = folder / HEARTBEAT_FILE
    return path.exists() and time.time() - path.stat().st_mtime < _DEAD_AFTER


def closed_properly(folder: Path) -> bool:
    """True if the last driver could clean up, as after Ctrl-C or an error; a killed one leaves its heartbeat file."""
    return not (folder / HEARTBEAT_FILE).exists()


def stop_file(folder: Path) -> Path:
    """The file whose existence asks the driver to end the sweep."""
    return folder / _STOP_FILE
