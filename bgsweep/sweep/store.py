"""The small files of a sweep (manifest, journal, claims, heartbeat, stop file) if the store is an object store.

The driver writes them to a local folder, and a thread copies them as they change: an object store cannot append.
Checkpoints do not come this way; Ray writes them to the store itself.
"""

import contextlib
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from bgsweep.errors import UserError, one_line
from bgsweep.storage.layout import sweep_folder
from bgsweep.storage.uri import Uri, cache_folder, filesystem, is_remote, sweep_command
from bgsweep.sweep.heartbeat import HEARTBEAT_FILE, pulse_in, stop_file
from bgsweep.sweep.journal import OLD_FILE, PARTS, summary
from bgsweep.sweep.manifest import MANIFEST_FILE, check_name
from bgsweep.sweep.ownership import OWNERS, Ownership, SweepTaken, last_token

_log = logging.getLogger(__name__)

Needed = Literal["signs", "state", "all"]
"""Which files of a sweep are read: who runs it, or also its trials as they are now, or its whole journal."""

_EVERY = 1.0  # seconds of the journal that are lost when a driver dies; the trials repeat what was lost
_ASK_EVERY = 5  # rounds between two looks for a stop file in the store
_PAUSE, _TELL_EVERY = 60.0, 300.0  # seconds: the longest between two tries, and between two warnings
_LAST_TRIES = (0.0, 1.0, 2.0, 4.0, 8.0)  # seconds before each, when the driver ends
_STORE_FILE = "store"


@contextlib.contextmanager
def local_store(store: Uri, name: str | None = None, needed: Needed = "all") -> Iterator[Path]:
    """A context with the store's folder, or with a copy of the small files of its sweeps (or of the named one).

    A sweep that cannot be read is named in a warning and left out, unless it is the one that is asked for.

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

        def pull(path: str) -> None:
            try:
                _pull(where, path, Path(folder, "sweeps", path.rpartition("/")[2]), needed)
            except OSError as error:
                if name is not None:
                    raise
                _log.warning("left out: %s: %s", path, one_line(error))

        try:
            if name is not None:
                _send_kept(store, name)
            with ThreadPoolExecutor(16) as pool:
                list(pool.map(pull, [f"{root}/sweeps/{name}"] if name else _sweeps(where, root)))
        except OSError as error:
            raise UserError(f"{store}: {one_line(error)}; check address and credentials") from error
        yield Path(folder)


def pulse_reader(folder: Path, store: Uri) -> Any:
    """A function that reads a sweep's heartbeat where its driver writes it."""
    if not is_remote(store):
        return lambda: pulse_in(folder)
    where, root = filesystem(sweep_folder(store, folder.name))

    def read() -> str | None:
        try:
            with where.open_input_stream(f"{root}/{HEARTBEAT_FILE}") as stream:
                return bytes(stream.read()).decode()
        except FileNotFoundError:
            return None
        except OSError:  # the next look may get an answer
            return pulse_in(folder)

    return read


class StoreSync:
    """A context in which a sweep's small files are copied to the store, and a stop file is looked for there.

    While the store refuses, it is tried again at growing intervals. Where it refuses at the end too, the files are kept
    on this machine, and the next command about the sweep that is given here copies them.
    """

    def __init__(self, folder: Path, store: Uri, owner: Ownership | None = None) -> None:
        self._folder, self._store = folder, store
        self._owner = owner or Ownership(folder, store)
        self._remote = is_remote(store)
        if self._remote:
            self._where, self._root, self._stop = _remote(folder, store)
        self._copied: dict[str, tuple[int, int]] = {}
        self._told = -_TELL_EVERY
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="store-sync", daemon=True)

    def __enter__(self) -> None:
        if self._remote:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        if not self._remote:
            return
        self._over.set()
        self._thread.join()
        error: OSError | None = None
        for pause in _LAST_TRIES:
            time.sleep(pause)
            try:
                self._copy()
                return
            except SweepTaken:
                return
            except OSError as problem:
                error = problem
        assert error is not None
        _keep(self._folder, self._store, error)

    def _work(self) -> None:
        rounds, pause = 0, _EVERY
        while not self._over.wait(pause):
            rounds += 1
            try:
                self._copy()
                if rounds % _ASK_EVERY == 0:
                    self._owner.look()
                    if _changed(self._where, self._stop) is not None:
                        stop_file(self._folder).touch()
                pause = _EVERY
            except SweepTaken:  # the journal's next write says so
                return
            except OSError as error:
                pause = min(2 * pause, _PAUSE)
                self._tell(error)

    def _tell(self, error: OSError) -> None:
        if time.monotonic() - self._told >= _TELL_EVERY:
            self._told = time.monotonic()
            _log.warning(
                "the sweep's journal cannot be copied to %s: %s; it is tried again", self._root, one_line(error)
            )

    def _copy(self) -> None:
        there = {path.relative_to(self._folder).as_posix(): _stamp(path) for path in _carried(self._folder)}
        changed = [name for name, stamp in there.items() if stamp and self._copied.get(name) != stamp]
        gone = [name for name in self._copied if name not in there]
        if changed or gone:
            self._owner.look()
        for name in changed:
            with contextlib.suppress(FileNotFoundError):  # a part that has just been closed
                _write(self._where, f"{self._root}/{name}", (self._folder / name).read_bytes())
                self._copied[name] = there[name] or (0, 0)
        for name in gone:
            with contextlib.suppress(FileNotFoundError):
                self._where.delete_file(f"{self._root}/{name}")
            del self._copied[name]


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


def _carried(folder: Path) -> list[Path]:
    """The files that go to the store, in an order in which a reader in between finds nothing missing."""
    journal = [folder / OLD_FILE, *sorted((folder / PARTS).glob("*.jsonl*"))]
    rest = [*folder.glob("records-*.json"), folder / MANIFEST_FILE, folder / HEARTBEAT_FILE]
    return [path for path in (*journal, *rest) if path.exists()]


def _stamp(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(FileNotFoundError):
        state = path.stat()
        return state.st_mtime_ns, state.st_size
    return None


def _keep(folder: Path, store: Uri, error: OSError) -> None:
    """Keep the files of a sweep that the store has refused; the folder that they are in is a temporary one."""
    kept = cache_folder() / "unsent" / folder.name
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept)
    (kept / _STORE_FILE).write_text(str(store), encoding="utf-8")
    _log.warning(
        "%s refuses the sweep's journal: %s. It is kept in %s, and `%s`, given on this machine, copies it",
        sweep_folder(store, folder.name),
        one_line(error),
        kept,
        sweep_command("status", folder.name, store),
    )


def _send_kept(store: Uri, name: str) -> None:
    """Copy what an earlier driver on this machine could not, unless another one has taken the sweep over."""
    kept = cache_folder() / "unsent" / name
    try:
        if (kept / _STORE_FILE).read_text(encoding="utf-8") != str(store):
            return
    except OSError:
        return
    where, root = filesystem(sweep_folder(store, name))
    if _changed(where, f"{root}/{OWNERS}/{last_token(kept) + 1:05d}") is None:
        for path in _carried(kept):
            if path.name != HEARTBEAT_FILE:
                _write(where, f"{root}/{path.relative_to(kept).as_posix()}", path.read_bytes())
        if not (kept / HEARTBEAT_FILE).exists() and _changed(where, f"{root}/{HEARTBEAT_FILE}") is not None:
            where.delete_file(f"{root}/{HEARTBEAT_FILE}")
    shutil.rmtree(kept)


def _remote(folder: Path, store: Uri) -> tuple[Any, str, str]:
    """The store's file system, the sweep's path in it, and that of its stop file."""
    where, root = filesystem(sweep_folder(store, folder.name))
    return where, root, f"{root}/{stop_file(folder).name}"


def _sweeps(where: Any, root: str) -> list[str]:
    from pyarrow.fs import FileSelector, FileType

    infos = where.get_file_info(FileSelector(f"{root}/sweeps", allow_not_found=True))
    return [info.path for info in infos if info.type == FileType.Directory]


def _pull(where: Any, path: str, folder: Path, needed: Needed) -> None:
    from pyarrow.fs import FileSelector, FileType

    folder.mkdir(parents=True)

    def listed(under: str) -> dict[str, int]:
        infos = where.get_file_info(FileSelector(f"{path}{under}", allow_not_found=True))
        return {info.base_name: int(info.mtime_ns or 0) for info in infos if info.type == FileType.File}

    def fetch(name: str, changed: int) -> None:
        with contextlib.suppress(FileNotFoundError):  # replaced or removed since it was listed
            with where.open_input_stream(f"{path}/{name}", compression=None) as stream:
                data = stream.read()
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
            os.utime(folder / name, ns=(changed, changed))

    parts = listed(f"/{PARTS}") if needed != "signs" else {}
    direct = listed("")
    for name, changed in listed(f"/{OWNERS}").items():
        fetch(f"{OWNERS}/{name}", changed)
    for name, changed in direct.items():
        journal = name == OLD_FILE or name.startswith("records-")
        if name in (MANIFEST_FILE, HEARTBEAT_FILE) or (journal and needed != "signs"):
            fetch(name, changed)
    first = summary(folder, list(parts))[0] if needed == "state" else ""
    for name, changed in parts.items():
        if name >= first:
            fetch(f"{PARTS}/{name}", changed)


def _changed(where: Any, path: str) -> int | None:
    """The time of an object's last change in ns; None if there is no such object."""
    from pyarrow.fs import FileType

    info = where.get_file_info(path)
    return int(info.mtime_ns or 0) if info.type == FileType.File else None


def _write(where: Any, path: str, data: bytes) -> None:
    # Without `compression` pyarrow goes by the name, and would compress what is compressed.
    with where.open_output_stream(path, compression=None) as stream:
        stream.write(data)
