"""The second part: a training step's speed against a bare loop of the same networks, and against the device's peak."""

import statistics
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch

from benchmarks.gpu.bare import bare_step
from benchmarks.gpu.rows import MISSED, Rows, Skipped, Values
from benchmarks.gpu.timing import flops, free_memory, matmul_flops, peak_gib, reset_peak, seconds_of
from benchmarks.gpu.workloads import Scale, device_of, networks, noise, resolved, started
from bgsweep.config import Experiment

SHARE_OF_BARE = 0.95


@dataclass(frozen=True)
class Case:
    """One row; ``seconds`` is what it is expected to take on an H100."""

    encoder: str
    method: str
    compile: bool = False
    seconds: float = 15.0
    split_bn: int = 1

    @property
    def name(self) -> str:
        split = f", split_bn {self.split_bn}" if self.split_bn > 1 else ""
        return f"{self.encoder} {self.method}{', compiled' if self.compile else ''}{split}"


CASES = (
    Case("resnet50", "moco_v2", seconds=35),
    Case("vit_s_16", "moco_v2", seconds=9),
    Case("resnet50", "byol", seconds=14),
    Case("resnet50", "swav", seconds=36),
    Case("resnet50", "moco_v2", compile=True, seconds=90),
    Case("resnet50", "moco_v2", split_bn=8),
    Case("vit_s_16", "byol"),
    Case("vit_s_16", "swav", seconds=36),
    Case("vit_s_16", "moco_v2", compile=True, seconds=60),
    Case("resnet50", "byol", compile=True, seconds=100),
    Case("resnet50", "swav", compile=True, seconds=120),
    Case("vit_s_16", "byol", compile=True, seconds=60),
    Case("vit_s_16", "swav", compile=True, seconds=80),
)
"""Most telling first: those at the end need more minutes. The seconds of the first four are measured."""


def run(rows: Rows, toy: bool) -> None:
    scale, device = Scale(toy), torch.device(device_of(toy))
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # of both sides
    rows.measure("matrix product, bf16", lambda: {"tflops": ceiling(device) / 1e12})
    for case in scale.pick(CASES, CASES[:5]):
        rows.measure(case.name, partial(measure, case, scale, device), seconds=0 if toy else case.seconds)
        free_memory(device)


@cache
def ceiling(device: torch.device) -> float:
    """FLOP/s of a large matrix product in bf16."""
    return matmul_flops(device, torch.bfloat16)


def experiment(case: Case, scale: Scale, batch: int, **training: Any) -> Experiment:
    encoder = scale.encoder if scale.toy and case.encoder.startswith("resnet") else {"name": case.encoder}
    size, small = scale.pick((224, 96), (32, 16))
    split = {"split_bn": case.split_bn} if case.split_bn > 1 else {}
    queue = {"queue_size": scale.pick(65536, 64)} if case.method == "moco_v2" else {}
    vit = case.encoder.startswith("vit")
    tree = {
        "views": scale.views(case.method, size, small),
        "method": scale.method(case.method, **split, **queue),
        "encoder": encoder,
        "optimizer": {"name": "adamw", "lr": 1e-3} if vit else {"name": "sgd", "lr": 0.03},
        "training": {"batch_size": batch, "precision": "bf16", "channels_last": True, **training},
    }
    return resolved(tree, device_of(scale.toy))


def measure(case: Case, scale: Scale, device: torch.device) -> Values:
    """A row, at half the batch where the device's memory does not hold the whole."""
    if case.compile and scale.toy:
        raise Skipped("compiling takes longer than the toy's steps")
    batch = scale.pick(256, 16)
    while True:
        try:
            return _measure(case, scale, device, batch)
        except torch.cuda.OutOfMemoryError:
            if batch <= 32:
                raise
        batch //= 2  # outside of the handler, whose exception keeps the tensors alive
        free_memory(device)


def _measure(case: Case, scale: Scale, device: torch.device, batch: int) -> Values:
    settings = experiment(case, scale, batch, compile=case.compile)
    training, images = started(settings), noise(settings, device)
    bare = bare_step(
        case.method,
        networks(settings, training.classes),
        images.views,
        images.labels,
        training.placement.autocast,
        adamw=settings.optimizer.name == "adamw",
    )
    index = iter(range(10**9))

    def ours() -> None:
        training._step(images, next(index))

    rounds, steps = scale.pick((5, 3), (2, 1))
    seconds_of([bare], device, 1, scale.pick(5, 1))
    free_memory(device)
    seconds_of([ours], device, 1, scale.pick(5, 1))  # compiles, chooses kernels, fills the allocator
    # Of this very step, for which kernels are chosen already; but operations inside compiled code cannot be counted.
    work = flops_per_image(case, scale) if case.compile else flops(ours) / batch
    reset_peak(device)
    seconds_of([ours], device, 1, 2)
    memory = peak_gib(device)
    mine, plain = seconds_of([ours, bare], device, rounds, steps)
    step, share = statistics.median(mine), statistics.median(b / a for a, b in zip(mine, plain, strict=True))
    low = share < SHARE_OF_BARE and case.split_bn == 1 and not scale.toy  # the bare loop does not split
    return {
        "images_per_second": batch / step,
        "share_of_bare": round(share, 3),
        "share_of_matmul": round(work * batch / step / ceiling(device), 3),
        "gflop_per_image": work / 1e9,
        "memory_gib": memory,
        "batch": batch,
        "step_ms": 1000 * step,
        MISSED: f"wanted: {SHARE_OF_BARE} of the bare loop" if low else "",
    }


@cache
def flops_per_image(case: Case, scale: Scale) -> float:
    """Of one step, uncompiled, on a batch small enough to be cheap; all of a step's products grow with the batch."""
    plain = Case(case.encoder, case.method)
    settings = experiment(plain, scale, 16)
    training, images = started(settings), noise(settings, torch.device(device_of(scale.toy)))
    return flops(lambda: training._step(images, 0)) / 16
