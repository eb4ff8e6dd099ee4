"""The small files of a sweep (manifest, journal, heartbeat, stop file) if the store is an object store.

The driver writes them to a local folder, and a thread copies them as they change: an object store cannot append.
Checkpoints do not come this way; Ray writes them to the store itself.
"""

import contextlib
import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bgsweep.errors import UserError, one_line
from bgsweep.storage.layout import sweep_folder
from bgsweep.storage.uri import Uri, filesystem, is_remote
from bgsweep.sweep.heartbeat import HEARTBEAT_FILE, stop_file
from bgsweep.sweep.journal import JOURNAL_FILE
from bgsweep.sweep.manifest import MANIFEST_FILE, check_name

_log = logging.getLogger(__name__)

_CARRIED = (MANIFEST_FILE, JOURNAL_FILE, HEARTBEAT_FILE)
_EVERY = 0.5  # seconds of the journal that are lost when a driver dies; the trials repeat what was lost
_ASK_EVERY = 10  # rounds between two looks for a stop file in the store


@contextlib.contextmanager
def local_store(store: Uri, name: str | None = None) -> Iterator[Path]:
    """A context with the store's folder, or with a copy of the small files of its sweeps (or of the named one).

    Raises:
        UserError: the store cannot be read, or no sweep can have that name.
    """
    if name is not None:
        check_name(name)
    if not is_remote(store):
        yield Path(store)
        return
    with tempfile.TemporaryDirectory(prefix="bgsweep-store-") as folder:
        where, root = filesystem(store)
        try:
            for path in [f"{root}/sweeps/{name}"] if name else _sweeps(where, root):
                _pull(where, path, Path(folder, "sweeps", path.rpartition("/")[2]))
        except OSError as error:
            raise UserError(f"{store}: {one_line(error)}; check address and credentials") from error
        yield Path(folder)


class StoreSync:
    """A context in which a sweep's small files are copied to the store, and a stop file is looked for there."""

    def __init__(self, folder: Path, store: Uri) -> None:
        self._folder = folder
        self._remote = is_remote(store)
        if self._remote:
            self._where, self._root, self._stop = _remote(folder, store)
        self._copied: dict[str, int] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="store-sync", daemon=True)

    def __enter__(self) -> None:
        if self._remote:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        if self._remote:
            self._over.set()
            self._thread.join()
            self._copy()

    def _work(self) -> None:
        rounds = 0
        while not self._over.wait(_EVERY):
            rounds += 1
            try:
                self._copy()
                if rounds % _ASK_EVERY == 0 and _changed(self._where, self._stop) is not None:
                    stop_file(self._folder).touch()
            except OSError as error:
                _log.warning(
                    "the sweep's journal cannot be copied to %s: %s; it is tried again", self._root, one_line(error)
                )

    def _copy(self) -> None:
        for name in _CARRIED:
            path = self._folder / name
            if not path.exists():
                if name in self._copied:
                    self._where.delete_file(f"{self._root}/{name}")
                    del self._copied[name]
                continue
            changed = path.stat().st_mtime_ns
            if self._copied.get(name) != changed:
                _write(self._where, f"{self._root}/{name}", path.read_bytes())
                self._copied[name] = changed


def ask_to_stop(folder: Path, store: Uri) -> None:
    """Write the stop file where the sweep's driver looks for it."""
    if not is_remote(store):
        stop_file(folder).touch()
        return
    where, _, stop = _remote(folder, store)
    _write(where, stop, b"stop")


def forget_stop(folder: Path, store: Uri) -> None:
    """Remove the stop file before the sweep is resumed."""
    stop_file(folder).unlink(missing_ok=True)
    if is_remote(store):
        where, _, stop = _remote(folder, store)
        if _changed(where, stop) is not None:
            where.delete_file(stop)


def _remote(folder: Path, store: Uri) -> tuple[Any, str, str]:
    """The store's file system, the sweep's path in it, and that of its stop file."""
    where, root = filesystem(sweep_folder(store, folder.name))
    return where, root, f"{root}/{stop_file(folder).name}"


def _sweeps(where: Any, root: str) -> list[str]:
    from pyarrow.fs import FileSelector, FileType

    infos = where.get_file_info(FileSelector(f"{root}/sweeps", allow_not_found=True))
    return [info.path for info in infos if info.type == FileType.Directory]


def _pull(where: Any, path: str, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in _CARRIED:
        changed = _changed(where, f"{path}/{name}")
        if changed is not None:
            with where.open_input_stream(f"{path}/{name}") as stream:
                (folder / name).write_bytes(stream.read())
            os.utime(folder / name, ns=(changed, changed))


def _changed(where: Any, path: str) -> int | None:
    """The time of an object's last change in ns; None if there is no such object."""
    from pyarrow.fs import FileType

    info = where.get_file_info(path)
    return int(info.mtime_ns or 0) if info.type == FileType.File else None


def _write(where: Any, path: str, data: bytes) -> None:
    with where.open_output_stream(path) as stream:
        stream.write(data)
