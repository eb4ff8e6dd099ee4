"""Device and precision of a run."""

from dataclasses import dataclass
from pathlib import Path

import torch

from bgsweep.config import Experiment
from bgsweep.errors import UserError

_CPUINFO = Path("/proc/cpuinfo")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Placement:
    """A device, the dtype of autocast (None: float32 throughout), and the memory format."""

    device: torch.device
    autocast: torch.dtype | None
    memory_format: torch.memory_format

    def context(self) -> torch.autocast:
        """A context of autocast, if the precision asks for it."""
        return torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None)

    def describe(self) -> dict[str, str]:
        """Device and precision for the run's record."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {"device": name, "precision": str(self.autocast or torch.float32).removeprefix("torch.")}


def select_device(experiment: Experiment, local_rank: int = 0) -> Placement:
    """Choose an experiment's device and precision.

    Raises:
        UserError: this machine does not have the device, or cannot compute in the precision.
    """
    training, workers = experiment.training, experiment.workers
    if workers.device == "cuda" and not torch.cuda.is_available():
        raise UserError("workers.device: cuda, but torch finds no GPU on this machine; use cpu or auto")
    cuda = torch.cuda.is_available() and workers.device != "cpu"
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if training.precision == "fp16" and not cuda:
        raise UserError("training.precision: fp16 needs a GPU; on CPUs use bf16, fp32 or auto")
    if training.precision == "auto":
        autocast = torch.bfloat16 if _gains_by_bf16(experiment.encoder.name, device) else None
    else:
        autocast = _DTYPES.get(training.precision)
    memory_format = torch.channels_last if training.channels_last else torch.contiguous_format
    return Placement(device, autocast, memory_format)


def _gains_by_bf16(encoder: str, device: torch.device) -> bool:
    """True if an encoder is faster in bf16 than in fp32 on this machine; emulated bf16 is slower and less exact.

    On a CPU with AMX a ResNet-18 step takes 431 ms in bf16 with channels_last and 678 in fp32; torch.compile gains
    nothing there.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # bf16 of AVX-512 is faster for plain convolutions only (benchmarks/precision.py).
    wanted = "_bf16" if encoder.startswith(("resnet", "wide_resnet")) else "amx_bf16"
    return _CPUINFO.exists() and wanted in _CPUINFO.read_text(encoding="utf-8", errors="replace")
