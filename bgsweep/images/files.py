"""Reading of image and mask files from a local disk, and the search for them in folders."""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from bgsweep.errors import UnreadableImage, UserError, warn_once

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif")

# Images too, but there is no decoder for them here.
_UNSUPPORTED = (".heic", ".heif", ".jxl", ".jp2", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".psd", ".exr", ".svg")

# Files and folders that network disks, archives and file managers create.
_JUNK = {"@eadir", "#recycle", "$recycle.bin", "__macosx", "thumbs.db", "desktop.ini", "lost+found"}


def is_junk(name: str) -> bool:
    """True for a file or folder that is hidden or created by a system, such as a Synology disk's ``@eaDir``."""
    return name.startswith(".") or name.lower() in _JUNK


def read_file(path: str | Path) -> bytes:
    """Read an image or a mask; every read of these from a local disk goes through here.

    Raises:
        UnreadableImage: the file is missing, a broken link, no regular file, or lacks read permission.
    """
    try:
        # Opened without waiting: a named pipe would wait for a writer forever.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UnreadableImage(f"{path}: cannot be read (not a regular file); replace or remove it")
            return file.read()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        if isinstance(error, FileNotFoundError) and Path(path).is_symlink():
            reason = f"a symbolic link to {Path(path).readlink()}, which does not exist"
        raise UnreadableImage(f"{path}: cannot be read ({reason}); replace or remove it") from error


def size_of(path: str) -> int:
    """Size of a file in bytes; 0 where there is none."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 - for millions of files
    except OSError:
        return 0


_FolderId = tuple[int, int]


def walk(
    root: Path,
    below: str = "",
    above: tuple[_FolderId, ...] = (),
    seen: dict[str, os.stat_result] | None = None,
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """All files below a folder with their names relative to it, without junk.

    Broken links, and empty folders named like an image, are included, so that they are counted as unreadable. A link
    named like an image is taken for one and not followed, nor is a link to a folder that it lies in. The status of each
    folder, from before it was listed, is added to `seen`.

    Raises:
        UserError: a folder cannot be listed.
    """
    folder = root / below
    try:
        status = folder.stat()
        here = status.st_dev, status.st_ino
        if here in above:
            warn_once(f"{folder}: a symbolic link to a folder that it lies in; it is not followed")
            return
        if seen is not None:
            seen[below] = status
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_junk(entry.name):
                    continue
                name = below + entry.name
                inside = walk(root, f"{name}/", (*above, here), seen) if _is_folder(entry) else iter([(name, entry)])
                first = next(inside, (name, entry) if name.lower().endswith(SUFFIXES) else None)
                if first is not None:
                    yield first
                    yield from inside
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"{error.filename or folder}: cannot be listed ({reason}); correct its permissions") from error


def images_among(root: str, names: Iterable[str]) -> list[str]:
    """The names of images, sorted; warns of images in formats that cannot be decoded."""
    found, unsupported = [], []
    for name in names:
        ending = name.lower()
        if ending.endswith(SUFFIXES):
            found.append(name)
        elif ending.endswith(_UNSUPPORTED):
            unsupported.append(name)
    if unsupported:
        kinds = ", ".join(sorted({f".{name.rpartition('.')[2].lower()}" for name in unsupported}))
        warn_once(
            f"{root}: {len(unsupported)} files are left out because bgsweep cannot read {kinds} "
            f"(first: {min(unsupported)}); convert them to JPEG or PNG"
        )
    return sorted(found)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # A folder's listing tells files from links without a system call each. Following two and a half million links took
    # seven of the nine minutes in which a busy machine opened ImageNet's size for the first time.
    if entry.is_symlink() and entry.name.lower().endswith(SUFFIXES):
        return False
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
