"""One way to digest a set of files."""

import hashlib
from collections.abc import Iterable


def digest(names: Iterable[str], contents: Iterable[bytes]) -> str:
    """First 16 hex digits of the SHA-256 over names and contents, in their order."""
    total = hashlib.sha256()
    for name, content in zip(names, contents, strict=True):
        total.update(b"%s\0%d\0" % (name.encode("utf-8", "surrogateescape"), len(content)))
        total.update(content)
    return total.hexdigest()[:16]
