"""Epochs of few steps: the share of its time in which a training waits, with and without batches made across epochs.

    python benchmarks/short_epochs.py [--epochs 6] [--record] [--json]

Two processes make the views of the embedded images as in benchmarks/loader.py, in batches of 128, seven steps an epoch.
A step takes 1.5 times as long as a batch takes them in the long run, so that only the first batches of an epoch are
waited for. Both loaders take turns, epoch by epoch; an epoch ends with a pause of one step, in place of an evaluation.
"""

import os
import statistics
import time
from collections.abc import Iterator
from typing import Any

from common import markdown, parser_of, report
from loader import experiment, seconds

from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config import Data
from bgsweep.data import open_splits
from bgsweep.data.loader import Batches
from bgsweep.training.run import limit_threads

BATCH, PROCESSES = 128, 2


def main() -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    limit_threads(1)
    views = experiment()
    train = open_splits(Data(resize=375)).train
    pipeline = ViewPipeline(views.views, views.background)
    # One epoch more than is trained, so that the last one, too, finds its batches begun.
    loaders = {
        name: Batches(train, pipeline, BATCH, 0, workers=PROCESSES, epochs=epochs)
        for name, epochs in (("an epoch at a time", 0), ("across epochs", options.epochs + 1))
    }
    step = 1.5 * seconds(loaders["an epoch at a time"].epoch(options.epochs), PROCESSES)
    waits: dict[str, list[float]] = {name: [] for name in loaders}
    for epoch in range(options.epochs):
        for name, loader in loaders.items():
            waits[name].append(waited(loader.epoch(epoch), step))
            time.sleep(step)
    found = {name: round(statistics.median(shares[1:]), 3) for name, shares in waits.items()}
    rows = [[name, f"{share:.3f}"] for name, share in found.items()]
    body = markdown(["batches are made", "share of the time that a step waits"], rows)
    body += f"\n\nA step of {step:.2f} s, {loaders['across epochs'].steps_per_epoch} an epoch; "
    body += f"medians of {options.epochs - 1} epochs; load {os.getloadavg()[1]:.1f}"
    report(options, "Epochs of few steps", "python benchmarks/short_epochs.py", body, found)


def waited(epoch: Iterator[Any], step: float) -> float:
    """The share of an epoch's time in which its steps wait for their batch."""
    began, slept = time.perf_counter(), 0.0
    for _ in epoch:
        asked = time.perf_counter()
        time.sleep(step)
        slept += time.perf_counter() - asked
    elapsed = time.perf_counter() - began
    return (elapsed - slept) / elapsed


if __name__ == "__main__":
    main()
