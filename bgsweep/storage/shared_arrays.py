"""Arrays that all processes of a machine map from one file, so that none computes or holds them for itself."""

import contextlib
import fcntl
import json
import mmap
import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, SupportsIndex, cast

import numpy as np
import numpy.typing as npt

from bgsweep.errors import UserError, one_line, warn_once
from bgsweep.storage.atomic import replacing
from bgsweep.storage.uri import cache_folder

Arrays = Mapping[str, npt.NDArray[Any]]

# Sets of more images are indexed once on a machine. Smaller ones are scanned in a third of a second, and looked at anew
# each time.
LARGE = 20_000
_ALIGNED = 64
# Files that no process has opened for so long are removed when another is written: those of images that have changed.
_UNUSED_DAYS = 30


class MappedArray(np.ndarray[Any, Any]):
    """A read-only array in a mapped file; its pickle holds the file's path, so that a loader process maps it too."""

    _where: tuple[Any, ...] | None = None

    def __array_finalize__(self, parent: object) -> None:
        self._where = None  # a slice, or the result of a computation, is pickled by its values

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return np.asarray(self).__reduce_ex__(protocol) if self._where is None else (map_array, self._where)


def map_array(path: str, kind: str, shape: tuple[int, ...], offset: int) -> MappedArray:
    """The array at an offset in bytes of a file.

    Raises:
        UserError: the file is gone.
    """
    try:
        status = Path(path).stat()
        mapped = _map(path, status.st_size, status.st_ino)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; this index was removed during the run: start it again") from error
    count = int(np.prod(shape, dtype=np.int64))
    flat = np.frombuffer(mapped, kind, count, offset) if count else np.empty(0, kind)
    array = cast(MappedArray, flat.reshape(shape).view(MappedArray))
    array._where = (path, kind, shape, offset)
    return array


def part_of(array: npt.NDArray[Any], first: int, count: int) -> npt.NDArray[Any]:
    """Some rows of an array; of a mapped one as such, so that its pickle stays small."""
    where = getattr(array, "_where", None)
    if where is None:
        return array[first : first + count]
    path, kind, (_, *row), at = where
    return map_array(path, kind, (count, *row), at + first * array.itemsize * int(np.prod(row, dtype=np.int64)))


def shared_arrays(path: Path | None, make: Callable[[], Arrays]) -> Arrays:
    """The arrays in a file, which is written if it is not there; one process of the machine makes them.

    Where the file cannot be written, this process and its loader processes share them, and a warning is given.

    Args:
        path: the file, whose name tells the content; None for arrays that no other process may find.
        make: computes the arrays.
    """
    if path is None:
        return _in_memory(make())
    with contextlib.suppress(OSError, ValueError):
        return _opened(path)
    with locked(path):
        with contextlib.suppress(OSError, ValueError):
            return _opened(path)
        made = make()
        try:
            with replacing(path, durable=False) as partial:
                _write(partial, made)
            _remove_unused(path.parent)
            return _opened(path)
        except OSError as error:
            told = "each process that trains makes this index again; set BGSWEEP_CACHE to a folder with room"
            warn_once(f"{path.parent}: cannot be written ({one_line(error)}): {told}")
            return _in_memory(made)


def index_folder() -> Path:
    """The folder of this machine that keeps the indexes of folders and packs."""
    return cache_folder() / "index"


def _in_memory(made: Arrays) -> Arrays:
    """The arrays in memory that loader processes can map as long as this process lives."""
    if not hasattr(os, "memfd_create"):
        return made
    path = in_memory(b"")
    _write(path, made)
    return _opened(path)


def in_memory(data: bytes) -> Path:
    """A file in memory, which other processes can read as long as this one lives."""
    if not hasattr(os, "memfd_create"):
        raise UserError(f"{index_folder()}: cannot be written; set BGSWEEP_CACHE to a folder with room")
    file = os.memfd_create("bgsweep-index")  # never closed: a loader process may start at any time
    path = Path(f"/proc/{os.getpid()}/fd/{file}")
    path.write_bytes(data)
    return path


def _write(path: Path, arrays: Arrays) -> None:
    """Write a line of JSON that says what lies where, padded, and the arrays' bytes."""
    entries: dict[str, tuple[str, list[int], int]] = {}
    at = 0
    for name, array in arrays.items():
        entries[name] = array.dtype.str, list(array.shape), at
        at += -(-array.nbytes // _ALIGNED) * _ALIGNED
    header = json.dumps({"size": at, "arrays": entries}).encode() + b"\n"
    begin = -(-len(header) // _ALIGNED) * _ALIGNED
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(header)
        for name, array in arrays.items():
            file.seek(begin + entries[name][2])
            _append(np.ascontiguousarray(array), file)
        file.truncate(begin + at)


def _append(array: npt.NDArray[Any], file: BinaryIO) -> None:
    array.tofile(file)


def _opened(path: Path) -> Arrays:
    """Raises OSError or ValueError where there is no such file, or not all of it."""
    with path.open("rb") as file:
        header = file.readline()
        found = json.loads(header)
        begin = -(-len(header) // _ALIGNED) * _ALIGNED
        if os.fstat(file.fileno()).st_size != begin + found["size"]:
            raise ValueError(f"{path} is not complete")
    with contextlib.suppress(OSError):
        os.utime(path)
    return {
        name: map_array(str(path), kind, tuple(shape), begin + at)
        for name, (kind, shape, at) in found["arrays"].items()
    }


@lru_cache(maxsize=64)
def _map(path: str, size: int, inode: int) -> mmap.mmap:
    with Path(path).open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """A context that one process of the machine enters at a time; without a lock where none can be had."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((path.parent / f".{path.name}.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_unused(folder: Path) -> None:
    oldest = time.time() - _UNUSED_DAYS * 86_400
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.unlink()
