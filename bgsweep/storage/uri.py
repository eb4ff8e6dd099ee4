"""URIs of folders, on this machine or in an object store, and local copies of remote files."""

import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from bgsweep.errors import NO_CREDENTIALS, UserError, has_password, one_line, without_password
from bgsweep.storage.atomic import replacing_folder

Uri = str | Path
"""A folder or file of this machine, or a URI that pyarrow knows (``s3://``, ``gs://``, ``abfs://``)."""

_SCHEMES = {"s3": "s3", "gcs": "gs", "abfs": "abfs", "hdfs": "hdfs"}


def is_remote(uri: Uri) -> bool:
    """True if a URI names an object store rather than a local path."""
    return "://" in str(uri)


def join(uri: Uri, *parts: str) -> Uri:
    """The URI of a path below a folder; local paths are made absolute."""
    return "/".join((str(uri).rstrip("/"), *parts)) if is_remote(uri) else Path(uri).absolute().joinpath(*parts)


def shell_quoted(uri: Uri) -> str:
    """A URI for a shell command that works in any folder: absolute, and quoted if needed."""
    return shlex.quote(str(uri if is_remote(uri) else Path(uri).absolute()))


def refuse_inside(images: str, out: str, option: str = "--out", kind: str = "images") -> None:
    """Raise UserError where `out` lies inside the folder of images (or masks), whose content it would change."""
    bare = (uri.partition("?")[0].rstrip("/") if is_remote(uri) else os.path.realpath(uri) for uri in (out, images))
    inner, outer = bare
    if inner == outer or inner.startswith(outer + "/"):
        raise UserError(f"{option} {out}: inside {images}, where it would be taken for {kind}; name another folder")


def sweep_command(words: str, name: str, store: Uri) -> str:
    """A command for a sweep that can be run as printed, from any folder."""
    return f"bgsweep {words} {name} --store {shell_quoted(store)}"


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
    """The URI of a path in a pyarrow file system, which is how Ray names checkpoints."""
    scheme = _SCHEMES.get(getattr(store_fs, "type_name", "local"))
    return f"{scheme}://{path}" if scheme else path


def upload(folder: Path, uri: Uri, last: str | None = None) -> None:
    """Copy a folder's files into an object store.

    Args:
        last: name of a file that is copied after all others: where it is, a copy is whole.

    Raises:
        UserError: it cannot be written.
    """
    from pyarrow.fs import LocalFileSystem, copy_files

    store_fs, root = filesystem(uri)
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.name == last)
    try:
        for path in files:
            there = PurePosixPath(root, path.relative_to(folder).as_posix())
            store_fs.create_dir(str(there.parent))
            copy_files(str(path), str(there), LocalFileSystem(), store_fs)
    except OSError as error:
        raise UserError(f"{uri}: cannot be written: {one_line(error)}; check the bucket and its credentials") from error


@contextlib.contextmanager
def downloaded(uri: Uri) -> Iterator[Path]:
    """A context with a local folder: the URI itself, or a temporary copy of a remote one.

    Raises:
        UserError: there are no files at the URI, or it cannot be read.
    """
    if not is_remote(uri):
        yield Path(uri)
        return
    store_fs, root = filesystem(uri)
    files = _files(uri, store_fs, root)
    with tempfile.TemporaryDirectory() as folder:
        _copy(uri, store_fs, root, files, Path(folder))
        yield Path(folder)


def cached_split(root: str, split: str, key: str) -> Path:
    """A folder with a copy of one split of images (or masks), made once on each machine.

    The copy is identified by the names, sizes and times of the objects, which are listed at each call, so that a
    changed split is copied again. Copies are kept in ``BGSWEEP_CACHE`` (by default ``bgsweep`` in the user's cache
    folder) until the user removes them.

    Args:
        key: name of `root` in errors, such as ``data.images``.

    Returns:
        The local folder that replaces `root`; its sub-folder `split` is complete.

    Raises:
        UserError: there are no files, they cannot be read, or the cache cannot be used or is too small.
    """
    store_fs, path = filesystem(root)
    source = f"{path}/{split}" if split != "." else path
    files = _files(f"{key}: {root}/{split}", store_fs, source)
    identity = hashlib.sha256(repr([root, split, [entry[:3] for entry in files]]).encode()).hexdigest()[:20]
    folder = cache_folder() / "data" / identity
    target = folder / PurePosixPath(path).name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one process copies; the others of this machine wait for its copy
            if not target.exists():
                _check_room(folder, sum(entry.size for entry in files), f"{key}: {root}")
                with replacing_folder(target) as partial:
                    _copy(root, store_fs, source, files, partial / split)
    except OSError as error:
        raise UserError(
            f"{key}: {root} cannot be copied to {folder} ({one_line(error)}); set BGSWEEP_CACHE to a folder on a disk "
            "of this machine that can be written"
        ) from error
    return target


def cache_folder() -> Path:
    """The folder for local copies of remote files: images, parts of packs, weights."""
    if own := os.environ.get("BGSWEEP_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bgsweep"


class RemoteEntry(NamedTuple):
    """A file or folder of an object store: its path below the listed folder, size in bytes, and last change in ns."""

    name: str
    size: int
    changed: int
    is_folder: bool


def list_remote(uri: Uri, store_fs: Any, root: str, recursive: bool = True) -> list[RemoteEntry]:
    """The entries below a folder of a pyarrow file system, sorted; none if there is no such folder.

    Args:
        uri: the folder's name in errors.

    Raises:
        UserError: the store cannot be read.
    """
    from pyarrow.fs import FileSelector, FileType

    try:
        infos = store_fs.get_file_info(FileSelector(root, allow_not_found=True, recursive=recursive))
    except OSError as error:
        raise UserError(f"{uri}: {one_line(error)}; check the address and the credentials") from error
    return sorted(
        RemoteEntry(
            info.path.removeprefix(root).lstrip("/"),
            info.size or 0,
            info.mtime_ns or 0,
            info.type == FileType.Directory,
        )
        for info in infos
    )


def _files(uri: Uri, store_fs: Any, root: str) -> list[RemoteEntry]:
    """The files below a folder, of which there must be some."""
    found = [entry for entry in list_remote(uri, store_fs, root) if not entry.is_folder]
    if not found:
        raise UserError(f"{uri}: no files found; check the address")
    # The names of objects are free text: one with `..` would be written outside of the copy's folder.
    outside = [entry.name for entry in found if ".." in PurePosixPath(entry.name).parts]
    if outside:
        raise UserError(f"{uri}: {outside[0]!r} would be written outside of its folder; remove that object")
    return found


def _copy(uri: Uri, store_fs: Any, root: str, files: Sequence[RemoteEntry], folder: Path) -> None:
    """Copy the listed files, several at a time."""
    from concurrent.futures import ThreadPoolExecutor

    def copy(name: str) -> None:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with store_fs.open_input_stream(f"{root}/{name}") as stream, target.open("wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)

    try:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(copy, [entry.name for entry in files]))
    except OSError as error:
        raise UserError(f"{uri}: cannot be copied to {folder}: {one_line(error)}; try again") from error


def _check_room(folder: Path, needed: int, uri: str) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{uri} has {needed / 2**30:.1f} GiB, but {folder} has {free / 2**30:.1f} GiB free; "
            "set BGSWEEP_CACHE to a folder on a larger disk"
        )
