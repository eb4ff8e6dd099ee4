"""Features and results of an audit on disk, so that a second call encodes and measures nothing again."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bgsweep.evaluation.audit.measure import Found
from bgsweep.evaluation.evaluator import PerImageMetric
from bgsweep.evaluation.features import Features
from bgsweep.storage.atomic import write_whole
from bgsweep.storage.hashing import Digest

Status = Literal["measured", "failed", "not applicable"]


class KeptFeatures:
    """Features by name, in memory and in files of a folder; of a folder that says whose they are.

    A file that cannot be read is made again.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._known: dict[str, Features] = {}

    def get(self, name: str, make: Callable[[], Features]) -> Features:
        """The features of a name; the first call makes them."""
        if name not in self._known:
            found = self._read(name)
            if found is None:
                found = make()
                self._write(name, found)
            self._known[name] = found
        return self._known[name]

    def _file(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{name.replace('/', '-')}.npz"

    def _read(self, name: str) -> Features | None:
        file = self._file(name)
        if file is None or not file.exists():
            return None
        try:
            with np.load(file) as arrays:
                return Features(torch.from_numpy(arrays["values"]), torch.from_numpy(arrays["labels"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def _write(self, name: str, found: Features) -> None:
        file = self._file(name)
        if file is None or found.scales is not None:  # those too large for memory are in a file of their own
            return
        content = io.BytesIO()
        np.savez(content, values=found.values.numpy(), labels=found.labels.numpy())
        write_whole(file, content.getvalue(), durable=False)


@dataclass(frozen=True)
class Outcome:
    """A measure's result for one encoder, or why there is none.

    Attributes:
        seconds: what measuring took.
        at: when it ended, in milliseconds of Unix time.
    """

    status: Status
    found: Found | None = None
    reason: str = ""
    seconds: float = 0.0
    at: int = 0


class KeptOutcomes:
    """Outcomes by the measure's name, in a folder; a failed measure is not kept, so that it is tried again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> Outcome | None:
        """The outcome of a measure; None if there is none that can be read."""
        try:
            plain = json.loads((self.folder / f"{name}.json").read_bytes())
            values = [
                PerImageMetric(one["name"], *(np.array(one[key], np.float64) for key in _ARRAYS))
                for one in plain["values"]
            ]
            found = Found(values, plain["details"]) if plain["status"] == "measured" else None
            return Outcome(plain["status"], found, plain["reason"], plain["seconds"], plain["at"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, name: str, outcome: Outcome) -> None:
        """Keep the outcome of a measure."""
        if outcome.status == "failed":
            return
        found = outcome.found
        values = (
            []
            if found is None
            else [{"name": one.name, **{key: getattr(one, key).tolist() for key in _ARRAYS}} for one in found.values]
        )
        plain = {"status": outcome.status, "reason": outcome.reason, "seconds": outcome.seconds, "at": outcome.at}
        plain |= {"values": values, "details": {} if found is None else found.details}
        write_whole(self.folder / f"{name}.json", json.dumps(plain).encode())


_ARRAYS = ("hits", "counted")


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
    """A short name for a folder of what depends on these values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
