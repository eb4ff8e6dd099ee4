"""Files in an object store: images are copied to this machine once, checkpoints when they are read."""

import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from bgsweep.errors import NO_CREDENTIALS, UserError, has_password, one_line, without_password
from bgsweep.storage.atomic import replacing_folder

Uri = str | Path
"""A folder or file of this machine, or a URI that pyarrow knows (``s3://``, ``gs://``, ``abfs://``)."""

_SCHEMES = {"s3": "s3", "gcs": "gs", "abfs": "abfs", "hdfs": "hdfs"}


def is_remote(uri: Uri) -> bool:
    return "://" in str(uri)


def join(uri: Uri, *parts: str) -> Uri:
    """A place further down; that of this machine is made absolute."""
    return "/".join((str(uri).rstrip("/"), *parts)) if is_remote(uri) else Path(uri).absolute().joinpath(*parts)


def anywhere(uri: Uri) -> str:
    """A place as a shell takes it in any folder: absolute, and quoted where that is needed."""
    return shlex.quote(str(uri if is_remote(uri) else Path(uri).absolute()))


def sweep_command(words: str, name: str, store: Uri) -> str:
    """A command about a sweep that can be given as it is printed, from any folder."""
    return f"bgsweep {words} {name} --store {anywhere(store)}"


def filesystem(uri: Uri) -> tuple[Any, str]:
    """pyarrow's file system of a URI, and the path in it; credentials come from the environment.

    Raises:
        UserError: the URI cannot be used.
    """
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem

    if has_password(str(uri)):
        raise UserError(f"{without_password(str(uri))}: {NO_CREDENTIALS}")
    try:
        found, root = FileSystem.from_uri(str(uri))
    except (ArrowInvalid, OSError, ValueError) as error:  # ValueError: not UTF-8
        raise UserError(f"{uri}: {one_line(error)}; name a folder or a URI such as s3://bucket/folder") from error
    return found, root.rstrip("/")


def uri_of(path: str, store_fs: Any) -> str:
    """The URI, as `downloaded` reads it, of a path that Ray gives in a pyarrow file system."""
    scheme = _SCHEMES.get(getattr(store_fs, "type_name", "local"))
    return f"{scheme}://{path}" if scheme else path


def upload(folder: Path, uri: Uri) -> None:
    """Copy a folder's files into an object store.

    Raises:
        UserError: it cannot be written.
    """
    from pyarrow.fs import LocalFileSystem, copy_files

    store_fs, root = filesystem(uri)
    try:
        copy_files(str(folder), root, LocalFileSystem(), store_fs)
    except OSError as error:
        raise UserError(f"{uri}: cannot be written: {one_line(error)}; check the bucket and its credentials") from error


@contextlib.contextmanager
def downloaded(uri: Uri) -> Iterator[Path]:
    """A folder, or a copy of it for as long as the context lasts where it is in an object store.

    Raises:
        UserError: there is nothing at that place, or it cannot be read.
    """
    if not is_remote(uri):
        yield Path(uri)
        return
    store_fs, root = filesystem(uri)
    files = _list(uri, store_fs, root)
    with tempfile.TemporaryDirectory() as folder:
        _copy(uri, store_fs, root, files, Path(folder))
        yield Path(folder)


def cached_split(root: str, split: str, key: str) -> Path:
    """A folder with a copy of one split of images (or masks), made once on each machine.

    The copy is found again by the names, sizes and times of the objects, which are listed at each call. Copies lie
    join ``BGSWEEP_CACHE`` (by default ``bgsweep`` in the user's cache folder), and nobody removes them but the user.

    Args:
        key: what errors call `root`, such as ``data.images``.

    Returns:
        What stands for `root`: its sub-folder `split` is complete.

    Raises:
        UserError: there is nothing, it cannot be read, or there is no room for it.
    """
    store_fs, path = filesystem(root)
    source = f"{path}/{split}" if split != "." else path
    files = _list(f"{key}: {root}/{split}", store_fs, source)
    identity = hashlib.sha256(repr([root, split, files]).encode()).hexdigest()[:20]
    folder = cache_folder() / "data" / identity
    target = folder / PurePosixPath(path).name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the other processes of this machine wait for the first one's copy
        if not target.exists():
            _check_room(folder, sum(size for _, size, _ in files), f"{key}: {root}")
            with replacing_folder(target) as partial:
                _copy(root, store_fs, source, files, partial / split)
    return target


def cache_folder() -> Path:
    """Where copies from elsewhere are kept on this machine: images, parts of packs, weights."""
    if own := os.environ.get("BGSWEEP_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bgsweep"


def listed(root: str) -> list[tuple[str, bool]]:
    """Names directly join a remote folder, and which of them are folders; none where there is no such folder."""
    from pyarrow.fs import FileSelector, FileType

    store_fs, path = filesystem(root)
    try:
        infos = store_fs.get_file_info(FileSelector(path, allow_not_found=True))
    except OSError as error:
        raise UserError(f"{root}: {one_line(error)}; check the address and the credentials") from error
    return [(info.base_name, info.type == FileType.Directory) for info in infos]


def _list(uri: Uri, store_fs: Any, root: str) -> list[tuple[str, int, int]]:
    """Names join the root, sizes in bytes, times in ns, sorted."""
    from pyarrow.fs import FileSelector, FileType

    try:
        infos = store_fs.get_file_info(FileSelector(root, recursive=True))
    except OSError as error:
        raise UserError(f"{uri}: {one_line(error)}; check the address and the credentials") from error
    found = [
        (info.path.removeprefix(root).lstrip("/"), info.size, info.mtime_ns or 0)
        for info in infos
        if info.type == FileType.File
    ]
    if not found:
        raise UserError(f"{uri}: there is nothing; check the address")
    outside = [name for name, *_ in found if ".." in PurePosixPath(name).parts]
    if outside:
        raise UserError(f"{uri}: {outside[0]!r} would be written outside of its folder; remove that object")
    return sorted(found)


def _copy(uri: Uri, store_fs: Any, root: str, files: Sequence[tuple[str, int, int]], folder: Path) -> None:
    """Copy the listed files, several at a time."""
    from concurrent.futures import ThreadPoolExecutor

    def copy(name: str) -> None:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with store_fs.open_input_stream(f"{root}/{name}") as stream, target.open("wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)

    try:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(copy, [name for name, *_ in files]))
    except OSError as error:
        raise UserError(f"{uri}: cannot be copied to {folder}: {one_line(error)}; try again") from error


def _check_room(folder: Path, needed: int, uri: str) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{uri} has {needed / 2**30:.1f} GiB and {folder} room for {free / 2**30:.1f}; "
            "set BGSWEEP_CACHE to a folder on a larger disk"
        )
