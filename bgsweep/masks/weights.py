"""Weights of saliency networks: a file of the user, or published weights, which are downloaded once."""

import contextlib
import hashlib
import urllib.request
from pathlib import Path
from typing import NamedTuple

from bgsweep.errors import UserError
from bgsweep.storage.atomic import write_whole
from bgsweep.storage.uri import cache_folder


class Published(NamedTuple):
    """URL and SHA-256 of a published file."""

    url: str
    sha256: str


_RELEASE = "https://github.com/danielgatis/rembg/releases/download/v0.0.0"
PUBLISHED = {
    "u2netp": Published(f"{_RELEASE}/u2netp.onnx", "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"),
    "u2net": Published(f"{_RELEASE}/u2net.onnx", "8d10d2f3bb75ae3b6d527c77944fc5e7dcd94b29809d47a739a7a728a912b491"),
}
"""U2-Net (176 MB) and its small version (5 MB), Apache-2.0, as ONNX."""


def load_weights(named: str) -> bytes:
    """The content of a file, or of a published network, which is cached.

    Raises:
        UserError: there is no such file, it cannot be downloaded, or its checksum is wrong.
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
    fix = f"download {url} on another machine and name the file by --weights, or use --method rbd"
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            data = response.read()
    except OSError as error:
        raise UserError(f"the weights of {name} cannot be downloaded ({error}); {fix}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise UserError(
            f"the weights of {name} have SHA-256 {found[:16]}…, not {sha256[:16]}…, and are not used; {fix}"
        )
    with contextlib.suppress(OSError):  # without a writable cache the weights are downloaded again
        write_whole(kept, data)
    return bytes(data)
