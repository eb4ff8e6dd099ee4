"""Digests of sets of files."""

import hashlib
from collections.abc import Iterable


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
