"""Does the image pipeline keep a device busy? Training from images against training from one batch in memory.

    python benchmarks/training.py [IMAGES MASKS] [--encoder resnet50] [--size 224] [--batch 256] [--compile] [--record]

MoCo-v2's ImageNet recipe with background augmentation, on trees of images and masks or, without them, on the
embedded ones enlarged to 375 px. Both sides take as many steps of bgsweep's loop, in turn, round after round; times are
of the wall, and leave out as many steps as the loader has batches waiting. `share_of_synthetic` is the median over the
rounds; `share_of_peak` is what the steps from memory reach of the arithmetic that a large matrix product reaches here.
Meant for a GPU: on a CPU the loader's processes want the cores that the steps run on.
"""

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from common import markdown, parser_of, report
from torch.utils.flop_counter import FlopCounterMode

from bgsweep.config import SweepConfig, load
from bgsweep.data.batch import Batch
from bgsweep.training.run import Run

RECIPE = Path(__file__).parents[1] / "search_spaces" / "moco_v2_imagenet.yaml"


def recipe(options: argparse.Namespace, compiled: bool) -> SweepConfig:
    data = ["data.images=sample", "data.masks=null", "data.resize=375", "data.validation=validation", "data.test=test"]
    if options.images:
        data = [f"data.images={options.images}", f"data.masks={options.masks}"]
    return load(
        RECIPE,
        [
            *data,
            "workers.count=1",
            "workers.device=auto",
            "background.remove=0.2",
            "background.random=0.2",
            f"encoder.name={options.encoder}",
            f"views.size={options.size}",
            f"training.batch_size={options.batch}",
            f"training.compile={str(compiled).lower()}",
            f"views.photometric={options.photometric}",
        ],
    )


def seconds_a_step(run: Run, batches: Iterable[Batch], skipped: int) -> float:
    """Of all steps but so many first ones."""
    began, steps = 0.0, 0
    for steps, batch in enumerate(batches, start=1):
        run.training._step(batch, steps)
        if steps == skipped:
            began = _now(run)
    return (_now(run) - began) / (steps - skipped)


def waiting(run: Run) -> int:
    """The number of batches that the loader makes ahead."""
    loader = run.training.batches._loader
    return 2 + loader.num_workers * (loader.prefetch_factor or 0)


def epochs(run: Run) -> Iterator[Batch]:
    """Batches without end."""
    for epoch in itertools.count():
        yield from run.training.batches.epoch(epoch)


def flops(run: Run, batch: Batch) -> int:
    """Floating-point operations of a step."""
    with FlopCounterMode(display=False) as counter:
        run.training._step(batch, 0)
    return int(counter.get_total_flops())


def peak(run: Run) -> float:
    """FLOP/s of a large matrix product in the precision of the steps."""
    side = 8192 if run.placement.device.type == "cuda" else 2048
    factor = torch.rand(side, side, device=run.placement.device, dtype=run.placement.autocast or torch.float32)
    times = []
    for _ in range(12):
        began = _now(run)
        factor @ factor
        times.append(_now(run) - began)
    return float(2 * side**3 / statistics.median(times[2:]))


def _now(run: Run) -> float:
    if run.placement.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(options: argparse.Namespace) -> tuple[list[tuple[float, float]], dict[str, Any]]:
    """Seconds of a step from images and of one from memory, by round; and what is to be said of the steps."""
    plain = Run(recipe(options, compiled=False))
    batch = next(iter(plain.training.batches.epoch(0)))
    work = flops(plain, batch)
    run = Run(recipe(options, compiled=True)) if options.compile else plain
    run.training.model.train()
    skipped, batches = waiting(run), epochs(run)
    steps = skipped + options.steps
    seconds_a_step(run, itertools.repeat(batch, 10), 9)  # warms up
    times = []
    for _ in range(options.rounds):
        real = seconds_a_step(run, itertools.islice(batches, steps), skipped)
        times.append((real, seconds_a_step(run, itertools.repeat(batch, options.steps + 1), 1)))
    return times, {"flops": work, "peak": peak(run), **run.placement.describe()}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("images", nargs="?")
    parser.add_argument("masks", nargs="?")
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40, help="that are measured in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photometric", choices=("cpu", "device"), default="device")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    times, said = measure(options)
    real, synthetic = (statistics.median(each) for each in zip(*times, strict=True))
    found = {
        "share_of_synthetic": round(statistics.median(other / one for one, other in times), 3),
        "share_of_peak": round(said["flops"] / synthetic / said["peak"], 3),
    }
    rows = [
        [name, f"{options.batch / step:.0f}", f"{said['flops'] / step / 1e12:.2f}"]
        for name, step in (("images", real), ("one batch in memory", synthetic))
    ]
    body = markdown(["from", "images/s", "TFLOP/s"], rows)
    body += (
        f"\n\n{options.encoder}, {options.size} px, batch {options.batch}, colours on {options.photometric}, "
        f"compile {options.compile}, {said['device']} in {said['precision']} ({said['peak'] / 1e12:.2f} TFLOP/s in a "
        f"matrix product), {options.rounds} rounds of {options.steps} steps, load {os.getloadavg()[1]:.1f}"
        f"\n\n`{json.dumps(found)}`"
    )
    report(options, "Training from images against training from memory", "python benchmarks/training.py", body, found)


if __name__ == "__main__":
    main()
