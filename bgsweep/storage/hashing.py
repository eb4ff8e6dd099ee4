"""Digests of sets of files."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


class Digest:
    """SHA-256 of names and contents, in order."""

    def __init__(self) -> None:
        self._total = hashlib.sha256()

    def add(self, name: str, content: bytes) -> None:
        """Add a file."""
        # Name and length first, so that no two different sets give the same bytes.
        self._total.update(b"%s\0%d\0" % (name.encode("utf-8", "surrogateescape"), len(content)))
        self._total.update(content)

    def value(self) -> str:
        """The first 16 hex digits."""
        return self._total.hexdigest()[:16]


def digest(names: Iterable[str], contents: Iterable[bytes]) -> str:
    """The `Digest` of files."""
    total = Digest()
    for name, content in zip(names, contents, strict=True):
        total.add(name, content)
    return total.value()


def digest_of_states(paths: Iterable[Path]) -> str:
    """Digest of files' sizes and times of change, where there are too many to read."""
    total = hashlib.sha256()
    for path in paths:
        try:
            found = path.stat()
            total.update(b"%d %d\n" % (found.st_size, found.st_mtime_ns))
        except OSError:
            total.update(b"absent\n")
    return total.hexdigest()[:16]
