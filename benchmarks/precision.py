"""The gain of bfloat16 on this machine, which `training.precision: auto` takes where the encoder gains by it.

    python benchmarks/precision.py [--rounds 7] [--record] [--json]

MoCo-v2 steps of bgsweep's loop on batches of noise, on one thread (or the GPU), in single precision and in bfloat16 in
turn; a row's factor is the ratio of the medians over the rounds, after two that warm up.
"""

import os
import statistics
from functools import partial
from typing import Any

from common import markdown, parser_of, report
from step import experiment, noise, seconds, started

from bgsweep.training.run import limit_threads

SHAPES: list[tuple[dict[str, Any], int, int]] = [
    ({"name": "resnet10", "width": 16, "stem": "small"}, 24, 64),
    ({"name": "resnet18"}, 64, 64),
    ({"name": "resnet18"}, 224, 16),
    ({"name": "resnet50"}, 224, 8),
    ({"name": "mobilenet_v3_small"}, 224, 16),
    ({"name": "vit_s_16"}, 224, 8),
]
"""Encoder, side of the views, batch."""


def measure(encoder: dict[str, Any], size: int, batch: int, rounds: int) -> tuple[float, float]:
    """Milliseconds of a step in single precision and in bfloat16."""
    runs = [experiment("moco_v2", encoder, size, batch_size=batch, precision=each) for each in ("fp32", "bf16")]
    steps = [partial(started(run)._step, noise(batch, size), 1) for run in runs]
    times = [[seconds(step) for step in steps] for _ in range(rounds + 2)]
    single, half = (1e3 * statistics.median(found) for found in zip(*times[2:], strict=True))
    return single, half


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    limit_threads(1)
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
