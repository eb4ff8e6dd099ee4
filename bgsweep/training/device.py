"""Device and precision of a run."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from bgsweep.config import Experiment
from bgsweep.errors import UserError

_CPUINFO = Path("/proc/cpuinfo")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Placement:
    """A device, the dtype of autocast (None: float32 throughout), and the memory format.

    Attributes:
        fixed_sizes: all steps have batches of the same sizes; with BG_Swaps the number of negatives varies.
    """

    device: torch.device
    autocast: torch.dtype | None
    memory_format: torch.memory_format
    fixed_sizes: bool = True

    def context(self) -> torch.autocast:
        """A context of autocast, if the precision asks for it."""
        return torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None)

    def arithmetic(self) -> contextlib.AbstractContextManager[None]:
        """A context for training, in which TF32 is exact enough beside a shorter precision.

        cuDNN tries its algorithms where that happens once: it would do so again for each size of a batch.
        """
        return arithmetic(self.device, tf32=self.autocast is not None, benchmark=self.fixed_sizes)

    def describe(self) -> dict[str, str]:
        """Device and precision for the run's record."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {"device": name, "precision": str(self.autocast or torch.float32).removeprefix("torch.")}


def select_device(experiment: Experiment, assigned: str | None = None) -> Placement:
    """Choose an experiment's device and precision.

    Args:
        assigned: the device that Ray gave this process; None takes the first GPU, if there is one.

    Raises:
        UserError: this machine does not have the device, or cannot compute in the precision.
    """
    training, workers = experiment.training, experiment.workers
    available = torch.cuda.is_available()
    if workers.device == "cuda" and not available:
        raise UserError("workers.device: cuda, but torch finds no GPU on this machine; use cpu or auto")
    if workers.device == "cuda" and assigned == "cpu":
        raise UserError("workers.device: cuda, but Ray gave this process no GPU; leave out search.gpus or workers.gpus")
    device = torch.device((assigned or "cuda:0") if available and workers.device != "cpu" else "cpu")
    if training.precision == "fp16" and device.type == "cpu":
        raise UserError("training.precision: fp16 needs a GPU; on CPUs use bf16, fp32 or auto")
    if training.precision == "auto":
        autocast = fastest(experiment.encoder.name, device)
    else:
        autocast = _DTYPES.get(training.precision)
    memory_format = torch.channels_last if training.channels_last else torch.contiguous_format
    return Placement(device, autocast, memory_format, fixed_sizes=not experiment.background.swap)


@contextlib.contextmanager
def arithmetic(device: torch.device, tf32: bool, benchmark: bool = False) -> Iterator[None]:
    """A context that says how GPUs multiply in float32, and whether cuDNN tries its algorithms for each new shape.

    TF32 keeps 10 of float32's 23 bits of mantissa. By default torch uses it in convolutions alone.
    """
    if device.type != "cuda":
        yield
        return
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32, convolutions.benchmark
    products.allow_tf32, convolutions.allow_tf32, convolutions.benchmark = tf32, tf32, benchmark
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32, convolutions.benchmark = before


def fastest(encoder: str, device: torch.device) -> torch.dtype | None:
    """The precision in which a device trains fastest (None: float32); emulated bf16 is slower and less exact.

    On a CPU with AMX a ResNet-18 step takes 431 ms in bf16 with channels_last and 678 in fp32; torch.compile gains
    nothing there.
    """
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if capability >= (8, 0) else torch.float16 if capability >= (7, 0) else None
    # bf16 of AVX-512 is faster for plain convolutions only (benchmarks/precision.py).
    wanted = "_bf16" if encoder.startswith(("resnet", "wide_resnet")) else "amx_bf16"
    native = _CPUINFO.exists() and wanted in _CPUINFO.read_text(encoding="utf-8", errors="replace")
    return torch.bfloat16 if native else None
