"""Files and folders that appear under their name whole or not at all, whenever the process or the machine dies."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".partial"
"""Ends the names of what is being written; what a killed process leaves under such a name can be removed."""


@contextlib.contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """A context in which a file is written beside ``path``, whose name it takes at the end; its folder is made.

    After an exception the old file, if there is one, is untouched.

    Args:
        durable: reach the disk before the renaming. Without, a crash of the machine can leave an empty file; that
            saves a millisecond or more for each of many small files that can be made again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, and of another name for each writer: two processes may write the same file.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        yield partial
        if durable:
            _sync(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if durable:
        with contextlib.suppress(OSError):  # some network file systems have no such call for folders
            _sync(path.parent)


def write_whole(path: Path, data: bytes, durable: bool = True) -> None:
    """Write a file with `replacing`."""
    with replacing(path, durable) as partial:
        partial.write_bytes(data)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A context in which a folder is made beside ``path``, whose name it takes at the end; no file may be there.

    Only one process at a time may write the same folder: it removes what a killed one has left.
    """
    partial = path.with_name(f".{path.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def remove_partial(folder: Path) -> None:
    """Remove what killed processes have left half written below a folder."""
    for path in folder.rglob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
