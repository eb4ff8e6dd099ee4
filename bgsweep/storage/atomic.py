"""Write files and folders so that they exist completely or not at all, even if the process or the machine dies."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".partial"
"""Suffix of files that are being written; if their process was killed, they can be removed."""


@contextlib.contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """A context with a temporary file beside ``path``, which is renamed to ``path`` at the end; creates the folder.

    After an exception an existing file is unchanged.

    Args:
        durable: write to the disk before the renaming (fsync). Without it a crash of the machine can leave an empty
            file; it saves a millisecond or more a file, for many small files that can be made again.
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
    """A context with a temporary folder beside ``path``, renamed to ``path`` at the end, which must not exist yet.

    Only one process at a time may write the same folder: it removes what a killed process has left.
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
    """Remove files below a folder that killed processes were writing."""
    for path in folder.rglob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
