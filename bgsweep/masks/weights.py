"""Weights of mask networks: those that come with bgsweep, a file of the user, or a file that is downloaded once."""

import contextlib
import hashlib
import urllib.request
from pathlib import Path

from bgsweep.errors import UserError
from bgsweep.masks.interfaces import NETWORKS
from bgsweep.storage.atomic import write_whole
from bgsweep.storage.uri import cache_folder

DOWNLOADED = {"u2net": "8d10d2f3bb75ae3b6d527c77944fc5e7dcd94b29809d47a739a7a728a912b491"}
"""SHA-256 of files that are downloaded when they are needed: U2-Net (176 MB)."""


def load_weights(network: str | None, file: str | None) -> bytes:
    """The content of a file, or without one the weights of a network that needs none.

    Raises:
        UserError: there is no such file, it cannot be downloaded, or its checksum is wrong.
    """
    if file is not None:
        return _read(file)
    assert network is not None
    if network == "u2netp":
        from bgsweep.masks.u2netp import shipped_weights

        return shipped_weights()
    if network in DOWNLOADED:
        return _downloaded(network)
    known = NETWORKS[network]
    raise UserError(f"--network {network}: name its file by --weights: {known.file} (license: {known.license})")


def _read(file: str) -> bytes:
    try:
        return Path(file).expanduser().read_bytes()
    except OSError as error:
        named = f"or --network {file} without --weights" if file in ("u2netp", *DOWNLOADED) else "or leave it out"
        raise UserError(f"--weights {file}: {error.strerror}; name an ONNX file, {named}") from error


def _downloaded(network: str) -> bytes:
    url, sha256 = NETWORKS[network].file, DOWNLOADED[network]
    kept = cache_folder() / f"{network}.onnx"
    if kept.exists() and hashlib.sha256(data := kept.read_bytes()).hexdigest() == sha256:
        return data
    fix = f"download {url} on another machine and name the file by --weights, or leave out --network"
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            data = response.read()
    except OSError as error:
        raise UserError(f"the weights of {network} cannot be downloaded ({error}); {fix}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise UserError(
            f"the weights of {network} have SHA-256 {found[:16]}…, not {sha256[:16]}…, and are not used; {fix}"
        )
    with contextlib.suppress(OSError):  # without a writable cache the weights are downloaded again
        write_whole(kept, data)
    return bytes(data)
