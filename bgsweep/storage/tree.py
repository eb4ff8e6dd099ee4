"""Trees of files on this machine or in an object store; each file is written completely or not at all."""

import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bgsweep.errors import UnreadableImage, UserError, one_line
from bgsweep.images.files import is_junk, read_file, walk
from bgsweep.storage.atomic import PARTIAL, remove_partial, write_whole
from bgsweep.storage.uri import RemoteEntry, filesystem, is_remote, list_remote


class FileStat(NamedTuple):
    """Size in bytes and time of the last change in seconds."""

    size: int
    changed: float


class Tree(Protocol):
    """Files by their path below a root, with forward slashes; hidden and system files are ignored."""

    uri: str

    def files(self) -> dict[str, FileStat]:
        """All files, sorted by name; none where the root does not exist."""
        ...

    def read(self, name: str) -> bytes:
        """The content of a file; raises UnreadableImage if this file cannot be read, UserError if the store cannot."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a file; raises UserError if it cannot be written, and then leaves nothing of it."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file; raises UserError if it cannot be removed."""
        ...

    def sweep(self) -> None:
        """Remove files that a killed process was writing."""
        ...


def open_tree(uri: str) -> Tree:
    """The tree at a folder or at a URI that pyarrow knows (``s3://``, ``gs://``, ``abfs://``, ``hdfs://``).

    Raises:
        UserError: the URI cannot be used.
    """
    return RemoteTree(uri, *filesystem(uri)) if is_remote(uri) else LocalTree(Path(uri).expanduser())


def write_file(path: Path, data: bytes) -> None:
    """Write a single file, completely or not at all.

    Raises:
        UserError: it cannot be written.
    """
    LocalTree(path.parent).write(path.name, data)


class LocalTree:
    """Files below a folder; each is written beside its place and renamed."""

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
            write_whole(path, data, durable=False)  # masks: thousands of small files that can be made again
        except OSError as error:
            raise _unwritable(str(path), error.strerror or one_line(error)) from error

    def remove(self, name: str) -> None:
        path = self.root / name
        try:
            path.unlink()
        except OSError as error:
            raise _unremovable(str(path), error.strerror or one_line(error)) from error

    def sweep(self) -> None:
        remove_partial(self.root)


class RemoteTree:
    """Files that pyarrow reaches; object stores show complete objects only, elsewhere complete files are renamed."""

    def __init__(self, uri: str, filesystem: Any, root: str) -> None:
        self.uri = uri
        self._filesystem = filesystem
        self._root = root.rstrip("/")
        self._renames = filesystem.type_name in ("local", "hdfs")

    def files(self) -> dict[str, FileStat]:
        found = [each for each in self._files() if not any(map(is_junk, each.name.split("/")))]
        return {each.name: FileStat(each.size, each.changed / 1e9) for each in found}

    def read(self, name: str) -> bytes:
        try:
            with self._filesystem.open_input_stream(f"{self._root}/{name}") as file:
                return bytes(file.read())
        except FileNotFoundError as error:
            raise UnreadableImage(f"{self.uri}/{name}: no such object") from error
        except OSError as error:
            raise UserError(f"{self.uri}/{name}: {one_line(error)}; run the command again to continue") from error

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

    def remove(self, name: str) -> None:
        try:
            self._filesystem.delete_file(f"{self._root}/{name}")
        except OSError as error:
            raise _unremovable(f"{self.uri}/{name}", one_line(error)) from error

    def sweep(self) -> None:
        for each in self._files():
            if each.name.endswith(PARTIAL):
                self._filesystem.delete_file(f"{self._root}/{each.name}")

    def _files(self) -> list[RemoteEntry]:
        return [each for each in list_remote(self.uri, self._filesystem, self._root) if not each.is_folder]


def _stat_of(entry: os.DirEntry[str]) -> FileStat:
    try:
        stat = entry.stat()
    except OSError:  # a broken link, which is reported when it is read
        return FileStat(0, 0.0)
    return FileStat(stat.st_size, stat.st_mtime)


def _unwritable(path: str, reason: str) -> UserError:
    return UserError(
        f"{path}: cannot be written: {reason}; fix this and run the command again (finished files are kept)"
    )


def _unremovable(path: str, reason: str) -> UserError:
    return UserError(f"{path}: cannot be removed: {reason}; fix this and run the command again")
