"""Time, memory and arithmetic of steps on a device."""

import resource
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

Call = Callable[[], object]


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(calls: Sequence[Call], device: torch.device, rounds: int, steps: int) -> list[list[float]]:
    """Seconds of one call, by round, for each of several calls that take turns.

    In turns, since a machine's clock rates change while it is measured; on a GPU by the device's own events, so that
    the time in which the host prepares the first call does not count.
    """
    found: list[list[float]] = [[] for _ in calls]
    for number in range(rounds):
        for index in range(len(calls)) if number % 2 else reversed(range(len(calls))):
            found[index].append(_seconds(calls[index], device, steps))
    return found


def _seconds(call: Call, device: torch.device, steps: int) -> float:
    if device.type != "cuda":
        began = time.perf_counter()
        for _ in range(steps):
            call()
        return (time.perf_counter() - began) / steps
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    first.record()
    for _ in range(steps):
        call()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1000 / steps


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: torch.device) -> float:
    """GiB of the device's memory that tensors took at most since `reset_peak`; on a CPU of the whole process."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def free_memory(device: torch.device) -> None:
    """Give back what a measurement left in the allocator, so that the next one has the whole device."""
    import gc

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def matmul_flops(device: torch.device, dtype: torch.dtype | None) -> float:
    """FLOP/s of a large matrix product, the practical ceiling of this device in this precision."""
    side = 8192 if device.type == "cuda" else 1024
    factors = [torch.randn(side, side, device=device, dtype=dtype or torch.float32) for _ in range(2)]
    for _ in range(3):
        factors[0] @ factors[1]
    (times,) = seconds_of([lambda: factors[0] @ factors[1]], device, rounds=5, steps=10 if side > 1024 else 2)
    return 2 * side**3 / statistics.median(times)


def flops(call: Call) -> int:
    """Floating-point operations of a call, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def update_of(module: nn.Module, call: Call) -> torch.Tensor:
    """The change of a module's parameters by a call, as one float64 vector on the CPU."""
    before = flat(module)
    call()
    return flat(module) - before


def flat(module: nn.Module) -> torch.Tensor:
    """All parameters of a module as one float64 vector on the CPU."""
    return torch.cat([each.detach().double().cpu().flatten() for each in module.parameters()])


def device_row(device: torch.device) -> dict[str, Any]:
    """Which machine and versions the rows are of."""
    from benchmarks.common import machine

    found: dict[str, Any] = {"machine": machine()}
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        found |= {
            "memory_gib": round(about.total_memory / 2**30, 1),
            "capability": f"{about.major}.{about.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found
