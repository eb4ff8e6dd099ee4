"""Read parts of large files, which are local, or remote and downloaded in the background during training."""

import fcntl
import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from bgsweep.errors import UserError, one_line, warn_once
from bgsweep.storage.atomic import remove_partial, replacing
from bgsweep.storage.shared_arrays import in_memory, index_folder, locked
from bgsweep.storage.uri import cache_folder, filesystem, is_remote

_log = logging.getLogger(__name__)
_PIECE = 8 << 20

Expected = tuple[str, int, str]
"""A shard's name, size in bytes and SHA-256."""


class Shards(Protocol):
    """The files of a pack."""

    uri: str

    def file(self, name: str) -> bytes:
        """A whole file; raises FileNotFoundError."""
        ...

    def local(self, name: str, sha256: str) -> Path:
        """A whole file on this machine, copied if need be; raises FileNotFoundError."""
        ...

    def expect(self, shards: Sequence[Expected], identity: str) -> None:
        """Set the shards to read, and the pack's identity in the cache; raises ValueError if a shard is missing."""
        ...

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """Part of a shard, shorter than `size` at its end; raises UserError if it cannot be read."""
        ...


def open_shards(uri: str, cache_gb: float) -> Shards:
    """The files at a folder or at a URI that pyarrow knows; raises UserError if the URI cannot be used."""
    if is_remote(uri):
        return RemoteShards(uri, int(cache_gb * 1e9))
    return LocalShards(Path(uri).expanduser())


class LocalShards:
    """Local files, opened for each part: that takes microseconds, and no descriptors are kept or sent to processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root)
        self._paths: list[str] = []

    def file(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def local(self, name: str, sha256: str) -> Path:
        return (self.root / name).absolute()

    def expect(self, shards: Sequence[Expected], identity: str) -> None:
        for name, size, _ in shards:
            if not (self.root / name).is_file() or (self.root / name).stat().st_size != size:
                raise ValueError(f"{name} is missing or not of {size} bytes")
        self._paths = [str(self.root / name) for name, *_ in shards]

    def read(self, shard: int, offset: int, size: int) -> bytes:
        try:
            return read_part(self._paths[shard], offset, size)
        except OSError as error:
            raise UserError(f"{self._paths[shard]}: {error.strerror}; copy the pack again") from error


class RemoteShards:
    """Remote files: parts are read when needed, and whole shards are downloaded in the background up to a limit.

    All processes of the machine share the downloaded shards. Other packs' shards are removed to make room, those least
    recently opened first. A shard that does not fit stays remote.
    """

    def __init__(self, uri: str, limit: int) -> None:
        self.uri, self.limit = uri, limit
        self._shards: Sequence[Expected] = ()
        self._folder = Path()
        self._now: dict[str, Any] = {}
        self._connect()

    def __getstate__(self) -> dict[str, Any]:
        # Connections and threads cannot be pickled; a loader process opens its own.
        return {**self.__dict__, "_now": {}}

    def file(self, name: str) -> bytes:
        where, root = self._connect()
        try:
            with where.open_input_stream(f"{root}/{name}") as file:
                return bytes(file.read())
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._unreachable(error) from error

    def local(self, name: str, sha256: str) -> Path:
        # Apart from the shards: there others are removed to make room, and what is half copied by who holds the lock.
        path = index_folder() / f"{sha256[:16]}-{name}"
        try:
            with locked(path):
                if not path.exists():
                    self._copy(name, sha256, path)
        except FileNotFoundError:
            raise
        except OSError as error:
            warn_once(f"{path.parent}: {one_line(error)}; {self.uri}/{name} is held in memory by each process instead")
            return in_memory(self.file(name))
        return path

    def expect(self, shards: Sequence[Expected], identity: str) -> None:
        self._shards, self._folder = shards, cache_root() / identity

    def read(self, shard: int, offset: int, size: int) -> bytes:
        name = self._shards[shard][0]
        try:
            return read_part(str(self._folder / name), offset, size)
        except OSError:  # not downloaded yet, or removed for another pack
            self._begin_fetching()
        where, root = self._connect()
        try:
            if name not in self._now:
                self._now[name] = where.open_input_file(f"{root}/{name}")
            return bytes(self._now[name].read_at(size, offset))
        except OSError as error:
            raise self._unreachable(error) from error

    def fetch(self) -> None:
        """Download as many shards as fit into the limit; one process of the machine at a time."""
        self._folder.mkdir(parents=True, exist_ok=True)
        # Lock the folder chosen where the pack was opened. A process elsewhere may have another environment, and so
        # another cache folder: under another lock it would remove the partial file that this process is writing.
        root = self._folder.parent
        with (root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.utime(self._folder)
            remove_partial(root)  # we hold the lock: the process that wrote it is dead
            for name, size, sha256 in self._shards:
                if not (self._folder / name).exists() and self._make_room(size):
                    self._copy(name, sha256, self._folder / name)

    def _copy(self, name: str, sha256: str, target: Path) -> None:
        where, root = self._connect()
        total = hashlib.sha256()
        with replacing(target) as partial:
            with where.open_input_stream(f"{root}/{name}") as remote, partial.open("wb") as local:
                while piece := remote.read(_PIECE):
                    total.update(piece)
                    local.write(piece)
            if total.hexdigest() != sha256:
                raise OSError(f"{name} differs from its checksum in the index; upload this shard again")

    def _make_room(self, size: int) -> bool:
        others = [path for path in self._folder.parent.iterdir() if path.is_dir() and path != self._folder]
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        own = _used(self._folder)
        while others and own + sum(map(_used, others)) + size > self.limit and own + size <= self.limit:
            shutil.rmtree(others.pop())
        return own + sum(map(_used, others)) + size <= self.limit

    def _begin_fetching(self) -> None:
        if "thread" not in self._now and self.limit > 0:
            self._now["thread"] = threading.Thread(target=self._fetch_or_say, daemon=True)
            self._now["thread"].start()

    def _fetch_or_say(self) -> None:
        try:
            self.fetch()
        except (OSError, UserError) as error:
            _log.warning("%s: not cached on this disk (%s); it is read remotely", self.uri, error)

    def _connect(self) -> tuple[Any, str]:
        if "connection" not in self._now:
            self._now["connection"] = filesystem(self.uri)
        connection: tuple[Any, str] = self._now["connection"]
        return connection

    def _unreachable(self, error: Exception) -> UserError:
        return UserError(f"{self.uri}: {one_line(error)}; check the address and the credentials")


def cache_root() -> Path:
    """The folder for downloaded shards of remote packs."""
    return cache_folder() / "packs"


def read_part(path: str, offset: int, size: int) -> bytes:
    """Up to `size` bytes of a local file from `offset` on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)


def _used(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
