"""Features and results on disk, by what they depend on, so that a second call encodes and measures nothing again."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from time import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bgsweep.errors import warn_once
from bgsweep.evaluation.evaluator import PerImageMetric
from bgsweep.evaluation.features import Features
from bgsweep.storage.atomic import replacing, write_whole
from bgsweep.storage.hashing import Digest


class KeptFeatures:
    """Features by name, in memory and in files of a folder; what all have in common, the folder says.

    A file that cannot be read is made again. Where the disk is full, features are kept in memory alone.

    Args:
        folder: None keeps nothing on disk.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._known: dict[str, Features] = {}

    def get(self, name: str, make: Callable[[], Features]) -> Features:
        """The features of a name; the first call makes them."""
        if name not in self._known:
            self._known[name] = self.once(name, make)
        return self._known[name]

    def once(self, name: str, make: Callable[[], Features]) -> Features:
        """As `get`, without keeping them in memory."""
        found = self._read(name)
        if found is None:
            found = make()
            self._write(name, found)
        return found

    def _file(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '-', name)}.safetensors"

    def _read(self, name: str) -> Features | None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        file = self._file(name)
        if file is None or not file.exists():
            return None
        try:
            found = load_file(file)  # maps the file, so that those of ImageNet are not read into memory
            _used(file)
            return Features(found["values"], found["labels"], found.get("scales"))
        except (OSError, KeyError, SafetensorError):
            return None

    def _write(self, name: str, found: Features) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        file = self._file(name)
        if file is None:
            return
        named = {"values": found.stored, "labels": found.labels}
        named |= {} if found.scales is None else {"scales": found.scales}
        try:
            with replacing(file, durable=False) as partial:
                save_file({key: each.contiguous() for key, each in named.items()}, partial)
        except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
            warn_once(f"{file}: features are not kept for a later call ({error})")


class KeptValues:
    """Values by image with a record as JSON, by name in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> tuple[list[PerImageMetric], dict[str, Any]] | None:
        """Values and record of a name; None if there are none that can be read."""
        file = self.folder / f"{name}.json"
        try:
            plain = json.loads(file.read_bytes())
            _used(file)
            values = [
                PerImageMetric(one["name"], *(np.array(one[key], np.float64) for key in _ARRAYS))
                for one in plain.pop("values")
            ]
            return values, plain
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, name: str, values: Iterable[PerImageMetric], record: Mapping[str, Any]) -> None:
        """Keep values and their record."""
        rows = [{"name": one.name, **{key: getattr(one, key).tolist() for key in _ARRAYS}} for one in values]
        write_whole(self.folder / f"{name}.json", json.dumps({**record, "values": rows}).encode())


_ARRAYS = ("hits", "counted")


def _used(file: Path) -> None:
    """Give a file the present time, by which `remove_unused` judges; what may only be read is not judged."""
    with suppress(OSError):
        os.utime(file)


def remove_unused(store: Path, days: float, dry_run: bool = False) -> dict[str, Any]:
    """Remove what evaluations and audits of a store have kept and no call has read for so many days.

    A later call computes it again. Masks that audits made stay.

    Returns:
        ``files`` and ``bytes``, and ``dry_run``, in which case nothing is removed.
    """
    since, files, size = time() - days * 86400, 0, 0
    for form in ("evaluations/**/*", "audit/**/features/*"):
        for file in store.glob(form):
            try:
                state = file.lstat()
                if not S_ISREG(state.st_mode) or state.st_mtime > since:
                    continue
                if not dry_run:
                    file.unlink()
            except OSError:  # removed by another, or in a folder that may only be read
                continue
            files, size = files + 1, size + state.st_size
    for folder in () if dry_run else sorted(store.glob("evaluations/**/"), reverse=True):
        with suppress(OSError):
            folder.rmdir()  # where nothing is left
    return {"files": files, "bytes": size, "dry_run": dry_run}


def network_digest(network: nn.Module) -> str:
    """Digest of a network's weights and of the names of its modules."""
    total = Digest()
    state: Mapping[str, Tensor] = network.state_dict()
    total.add("modules", str(network).encode())
    for name, tensor in state.items():
        data = tensor.detach().cpu().contiguous()
        total.add(f"{name} {data.dtype} {tuple(data.shape)}", data.flatten().view(torch.uint8).numpy().tobytes())
    return total.value()


def key_of(**parts: Any) -> str:
    """A short name for what depends on these values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
