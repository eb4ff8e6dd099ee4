"""Images that are copied into one file of the cache, since they cannot be read in any order where they are."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

from bgsweep.data.datasets.entries import Place
from bgsweep.errors import UserError, one_line
from bgsweep.storage.atomic import replacing
from bgsweep.storage.shared_arrays import index_folder


class CopiedImages:
    """One file of encoded images, named by a key; it is written when the first one is added."""

    def __init__(self, key: str) -> None:
        self.path = index_folder() / f"{key}.images"
        self._file: BinaryIO | None = None
        self._stack = contextlib.ExitStack()

    @property
    def name(self) -> str | None:
        """The path of the file; None if no image was added."""
        return None if self._file is None else str(self.path)

    @contextlib.contextmanager
    def written(self) -> Iterator[None]:
        """A context in which images are added; after an exception nothing of them stays.

        Raises:
            UserError: the file cannot be written.
        """
        try:
            with self._stack:
                yield
        except OSError as error:
            raise UserError(
                f"{self.path.parent}: images cannot be copied there ({one_line(error)}); set BGSWEEP_CACHE to a folder "
                "with room, or `bgsweep pack` them on a machine that has it"
            ) from error

    def add(self, data: Any) -> Place:
        """Append an encoded image."""
        if self._file is None:
            partial = self._stack.enter_context(replacing(self.path, durable=False))
            self._file = self._stack.enter_context(partial.open("wb"))
        at = self._file.tell()
        return Place(str(self.path), at, self._file.write(data))


def keep(path: str) -> bool:
    """Mark a copy as in use, so that it is not removed as others that no one has opened for long; False: it is gone."""
    try:
        os.utime(path)
    except OSError:
        return False
    return True
