"""A tree of files on this machine or in an object store, written whole or not at all."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bgsweep.errors import UnreadableImage, UserError, one_line
from bgsweep.images.files import is_junk, read_file, walk
from bgsweep.storage.atomic import PARTIAL, remove_partial, write_whole
from bgsweep.storage.uri import filesystem, is_remote


class FileStat(NamedTuple):
    """Size in bytes and time of the last change in seconds."""

    size: int
    changed: float


class Tree(Protocol):
    """Files by their path below a root, with forward slashes; hidden files and those of systems are passed over."""

    uri: str

    def files(self) -> dict[str, FileStat]:
        """All files, sorted by name; none where the root does not exist."""
        ...

    def read(self, name: str) -> bytes:
        """Raises UnreadableImage where this file cannot be read, UserError where none can."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Raises UserError where the file cannot be written; then nothing of it is there."""
        ...

    def sweep(self) -> None:
        """Remove what a killed writer has left half done."""
        ...


def open_tree(uri: str) -> Tree:
    """The tree at a folder or at a URI that pyarrow knows (``s3://``, ``gs://``, ``abfs://``, ``hdfs://``).

    Raises:
        UserError: the URI cannot be used.
    """
    return RemoteTree(uri, *filesystem(uri)) if is_remote(uri) else LocalTree(Path(uri).expanduser())


def write_file(path: Path, data: bytes) -> None:
    """Write a single file, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    LocalTree(path.parent).write(path.name, data)


class LocalTree:
    """Files below a folder. A file appears under its name only once it is complete."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root)

    def files(self) -> dict[str, FileStat]:
        if not self.root.is_dir():
            return {}
        return dict(sorted((name, _stat_of(entry)) for name, entry in walk(self.root)))

    def read(self, name: str) -> bytes:
        return read_file(self.root / name)

    def write(self, name: str, data: bytes) -> None:
        path = self.root / name
        try:
            write_whole(path, data, durable=False)  # of thousands of small files; each can be made again
        except OSError as error:
            raise _unwritable(str(path), error.strerror or one_line(error)) from error

    def sweep(self) -> None:
        remove_partial(self.root)


class RemoteTree:
    """Files that pyarrow reaches. An object store shows an object only once it is complete; elsewhere it is renamed."""

    def __init__(self, uri: str, filesystem: Any, root: str) -> None:
        self.uri = uri
        self._filesystem = filesystem
        self._root = root.rstrip("/")
        self._renames = filesystem.type_name in ("local", "hdfs")

    def files(self) -> dict[str, FileStat]:
        found = {name: stat for name, stat in self._scan() if not any(map(is_junk, name.split("/")))}
        return dict(sorted(found.items()))

    def read(self, name: str) -> bytes:
        try:
            with self._filesystem.open_input_stream(f"{self._root}/{name}") as file:
                return bytes(file.read())
        except FileNotFoundError as error:
            raise UnreadableImage(f"{self.uri}/{name}: no such object") from error
        except OSError as error:
            raise UserError(
                f"{self.uri}/{name}: {one_line(error)}; run the command again to go on from here"
            ) from error

    def write(self, name: str, data: bytes) -> None:
        path = f"{self._root}/{name}"
        folder, _, last = path.rpartition("/")
        partial = f"{folder}/.{last}.{os.getpid()}{PARTIAL}" if self._renames else path
        try:
            if self._renames:
                self._filesystem.create_dir(folder, recursive=True)
            with self._filesystem.open_output_stream(partial) as file:
                file.write(data)
            if self._renames:
                self._filesystem.move(partial, path)
        except OSError as error:
            raise _unwritable(f"{self.uri}/{name}", one_line(error)) from error

    def sweep(self) -> None:
        for name, _ in self._scan():
            if name.endswith(PARTIAL):
                self._filesystem.delete_file(f"{self._root}/{name}")

    def _scan(self) -> Iterator[tuple[str, FileStat]]:
        from pyarrow.fs import FileSelector, FileType

        try:
            infos = self._filesystem.get_file_info(FileSelector(self._root, allow_not_found=True, recursive=True))
        except OSError as error:
            raise UserError(f"{self.uri}: {one_line(error)}; check the address and the credentials") from error
        for info in infos:
            if info.type == FileType.File:
                changed = info.mtime_ns / 1e9 if info.mtime_ns else 0.0
                yield info.path.removeprefix(self._root).lstrip("/"), FileStat(info.size, changed)


def _stat_of(entry: os.DirEntry[str]) -> FileStat:
    try:
        stat = entry.stat()
    except OSError:  # a link that leads nowhere: whoever reads it is told
        return FileStat(0, 0.0)
    return FileStat(stat.st_size, stat.st_mtime)


def _unwritable(path: str, reason: str) -> UserError:
    return UserError(f"{path}: cannot be written: {reason}; what is finished is kept: mend this and run it again")
