"""Where a run computes, and in which precision."""

from dataclasses import dataclass
from pathlib import Path

import torch

from bgsweep.config import Experiment
from bgsweep.errors import UserError

_CPUINFO = Path("/proc/cpuinfo")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Placement:
    """A device, the type that autocast computes in (None: everything in float32), and the memory format."""

    device: torch.device
    autocast: torch.dtype | None
    memory_format: torch.memory_format

    def context(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None)

    def describe(self) -> dict[str, str]:
        """For the run's record: device, its name where it has one, and the arithmetic."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {"device": name, "precision": str(self.autocast or torch.float32).removeprefix("torch.")}


def select_device(experiment: Experiment, local_rank: int = 0) -> Placement:
    """Choose an experiment's device and precision.

    Raises:
        UserError: the device or precision asked for is not to be had on this machine.
    """
    training, workers = experiment.training, experiment.workers
    if workers.device == "cuda" and not torch.cuda.is_available():
        raise UserError("workers.device: cuda was asked for, but torch sees no GPU here; use cpu or auto")
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
    """Whether an encoder is faster in bf16 than in fp32 here; emulated bf16 is slower and less exact."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # AVX-512's is faster for plain convolutions only (benchmarks/precision.py).
    wanted = "_bf16" if encoder.startswith(("resnet", "wide_resnet")) else "amx_bf16"
    return _CPUINFO.exists() and wanted in _CPUINFO.read_text(encoding="utf-8", errors="replace")
