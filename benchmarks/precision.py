"""What bfloat16 gives here, which `training.precision: auto` takes where the device computes it natively.

    python benchmarks/precision.py [--rounds 7] [--record] [--json]

MoCo-v2 steps of bgsweep's loop on batches of noise, on one thread (or the GPU), in single precision and in bfloat16 in
turn; a row's factor is the ratio of the medians over the rounds, after two that warm up.
"""

import os
import statistics
from functools import partial

import torch
from common import markdown, parser_of, report
from step import seconds

from bgsweep.config import resolve
from bgsweep.data.embedded import EmbeddedSample
from bgsweep.data.loader import Batch
from bgsweep.run import threads
from bgsweep.training import Pretraining, place

SHAPES = [
    ({"name": "resnet10", "width": 16, "stem": "small"}, 24, 64),
    ({"name": "resnet18"}, 64, 64),
    ({"name": "resnet18"}, 224, 16),
    ({"name": "resnet50"}, 224, 8),
    ({"name": "mobilenet_v3_small"}, 224, 16),
    ({"name": "vit_s_16"}, 224, 8),
]
"""Encoder, side of the views, batch."""


def training(encoder: dict[str, object], size: int, batch: int, precision: str) -> Pretraining:
    tree = {
        "views": {"size": size},
        "method": {"name": "moco_v2", "queue_size": 4096},
        "encoder": encoder,
        "training": {"batch_size": batch, "precision": precision},
        "data": {"loader_workers": 0},
    }
    experiment = resolve({"experiment": tree}).experiment
    made = Pretraining(experiment, EmbeddedSample("train"), place(experiment))
    made.model.train()
    return made


def measure(encoder: dict[str, object], size: int, batch: int, rounds: int) -> tuple[float, float]:
    """Milliseconds of a step in single precision and in bfloat16."""
    views = [torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8) for _ in range(2)]
    noise = Batch(views, torch.randint(0, 10, (batch,)), torch.arange(batch), {})
    steps = [partial(training(encoder, size, batch, each)._step, noise, 1) for each in ("fp32", "bf16")]
    times = [[seconds(step) for step in steps] for _ in range(rounds + 2)]
    single, half = (1e3 * statistics.median(found) for found in zip(*times[2:], strict=True))
    return single, half


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    threads(1)
    rows, factors = [], {}
    for encoder, size, batch in SHAPES:
        single, half = measure(encoder, size, batch, options.rounds)
        shape = f"{encoder['name']}, {size} px, batch {batch}"
        factors[shape] = round(single / half, 2)
        rows.append([shape, f"{single:.0f}", f"{half:.0f}", f"{factors[shape]:.2f}"])
    body = markdown(["step", "fp32, ms", "bf16, ms", "times as fast"], rows)
    body += f"\n\nOne thread, {options.rounds} rounds, load {os.getloadavg()[1]:.1f}"
    report(options, "bfloat16 against single precision", "python benchmarks/precision.py", body, factors)


if __name__ == "__main__":
    main()
