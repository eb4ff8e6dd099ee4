"""The weights of saliency networks: a file that the user names, or one fetched once from where it is published."""

import contextlib
import hashlib
import urllib.request
from pathlib import Path
from typing import NamedTuple

from bgsweep.errors import UserError
from bgsweep.storage.atomic import write_whole
from bgsweep.storage.uri import cache_folder


class Published(NamedTuple):
    """Where a file is, and the SHA-256 that it must have."""

    url: str
    sha256: str


_RELEASE = "https://github.com/danielgatis/rembg/releases/download/v0.0.0"
PUBLISHED = {
    "u2netp": Published(f"{_RELEASE}/u2netp.onnx", "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"),
    "u2net": Published(f"{_RELEASE}/u2net.onnx", "8d10d2f3bb75ae3b6d527c77944fc5e7dcd94b29809d47a739a7a728a912b491"),
}
"""U2-Net (176 MB) and its small version (5 MB), Apache-2.0, as ONNX."""


def load_weights(named: str) -> bytes:
    """The content of a file, or of one of the published networks, which is kept for the next time.

    Raises:
        UserError: there is no such file, or it cannot be fetched, or it is not what was published.
    """
    if named in PUBLISHED and not Path(named).exists():
        return _published(named)
    try:
        return Path(named).expanduser().read_bytes()
    except OSError as error:
        known = ", ".join(PUBLISHED)
        raise UserError(f"--weights {named}: {error.strerror}; name an ONNX file or one of: {known}") from error


def _published(name: str) -> bytes:
    url, sha256 = PUBLISHED[name]
    kept = cache_folder() / f"{name}.onnx"
    if kept.exists() and hashlib.sha256(data := kept.read_bytes()).hexdigest() == sha256:
        return data
    cure = f"download it where there is a network and name it by --weights FILE, or use --method rbd: {url}"
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            data = response.read()
    except OSError as error:
        raise UserError(f"the weights of {name} cannot be fetched ({error}); {cure}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise UserError(
            f"the weights of {name} have SHA-256 {found[:16]}…, not {sha256[:16]}…, and are not used; {cure}"
        )
    with contextlib.suppress(OSError):  # a cache that cannot be written only means fetching again
        write_whole(kept, data)
    return bytes(data)
