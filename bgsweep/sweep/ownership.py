"""Ownership of a sweep: of several drivers only one writes to it, and each later one fences off those before.

A driver claims a sweep by creating ``owners/TOKEN``, which only one process can. The tokens rise; the driver of a lower
one finds the next claim before it writes, and ends. What it wrote in between is in journal parts of its own token,
which readers follow up to where the next driver found them.
"""

import json
import logging
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bgsweep.errors import UserError, one_line
from bgsweep.storage.exclusive import create
from bgsweep.storage.layout import sweep_folder
from bgsweep.storage.uri import Uri, filesystem, is_remote, sweep_command
from bgsweep.tracking.provenance import owner

OWNERS = "owners"

_log = logging.getLogger(__name__)


class SweepTaken(UserError):
    """Another driver owns the sweep."""


class Ownership:
    """A driver's claim to a sweep.

    Args:
        folder: of the sweep on this machine.
        token: the claim's number, from 1; 0 for a sweep that no driver claims, as in tests and older versions.
    """

    def __init__(self, folder: Path, store: Uri, token: int = 0) -> None:
        self.folder, self.store, self.token = folder, store, token
        self._next = _name(token + 1)

    @classmethod
    def claim(cls, folder: Path, store: Uri, after: int) -> Self:
        """Take a sweep that nobody owns, or whose last owner is dead.

        Args:
            after: the last token when the owner was seen to be dead; a later one is another process's.

        Raises:
            SweepTaken: another process has claimed it at the same time.
        """
        token = after + 1
        text = json.dumps({"token": token, **owner()}).encode() + b"\n"
        path = sweep_folder(store, folder.name)
        if not create(f"{path}/{OWNERS}/{_name(token)}", text):
            raise SweepTaken(
                f"{folder.name}: another driver has just taken this sweep; follow it with "
                f"`{sweep_command('status', folder.name, store)}`"
            )
        if is_remote(store):
            here = folder / OWNERS / _name(token)
            here.parent.mkdir(parents=True, exist_ok=True)
            here.write_bytes(text)
        return cls(folder, store, token)

    def check(self) -> None:
        """Raise SweepTaken if another driver has taken the sweep over; called before each write.

        In a bucket the next claim is looked for by `look`, from time to time and before each copy.
        """
        if (self.folder / OWNERS / self._next).exists():
            by = owner_of(self.folder, {}).get("bgsweep.host", "another machine")
            raise SweepTaken(
                f"{self.folder.name}: another driver, on {by}, has taken this sweep over; this one ends without "
                f"writing more. Follow it with `{sweep_command('status', self.folder.name, self.store)}`"
            )

    def look(self) -> None:
        """Bring the next claim from the bucket, if there is one, and check.

        Raises:
            OSError: the bucket does not answer.
        """
        if is_remote(self.store):
            from pyarrow.fs import FileType

            where, root = filesystem(sweep_folder(self.store, self.folder.name))
            path = f"{root}/{OWNERS}/{self._next}"
            if where.get_file_info(path).type == FileType.File:
                with where.open_input_stream(path) as stream:
                    (self.folder / OWNERS / self._next).write_bytes(stream.read())
        self.check()

    def lost(self) -> bool:
        """True if another driver is known to have taken the sweep over."""
        return (self.folder / OWNERS / self._next).exists()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing of a sweep that was refused before it had a manifest: its name is free again."""
        if (self.folder / "sweep.json").exists() or self.lost():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        if is_remote(self.store):
            where, root = filesystem(sweep_folder(self.store, self.folder.name))
            try:
                where.delete_dir(root)
            except OSError as problem:
                _log.warning("%s: cannot be removed: %s", root, one_line(problem))


def last_token(folder: Path) -> int:
    """The token of a sweep's last claim; 0 if there is none."""
    return max(_tokens(folder), default=0)


def owner_of(folder: Path, manifest: dict[str, Any]) -> dict[str, str]:
    """The tags of the process that claimed a sweep last; those in the manifest of an older version."""
    for token in sorted(_tokens(folder), reverse=True):
        try:
            found = json.loads((folder / OWNERS / _name(token)).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # being written
            continue
        if isinstance(found, dict) and found.keys() >= {"bgsweep.host", "bgsweep.pid", "bgsweep.born"}:
            return {str(key): str(value) for key, value in found.items()}
    return dict(manifest.get("owner", {}))


def _tokens(folder: Path) -> list[int]:
    return [int(path.name) for path in (folder / OWNERS).glob("[0-9]*") if path.name.isdigit()]


def _name(token: int) -> str:
    return f"{token:05d}"
