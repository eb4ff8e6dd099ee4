"""Trials side by side that share their views (`search.share_views`) and decoded images (`data.cache`), beside others.

    python benchmarks/sharing.py [--images DIR --masks DIR] [--count 256] [--rounds 3] [--record] [--json]

Four consumers, processes that only read batches (MoCo-v2's views from a pack, no training) as a loader's process does,
begin an epoch at the same time. `different backgrounds` are BG_RM and BG_Random at 0 or 0.2 in all four combinations;
`different hyperparameters` have both at 0.2. Separate and shared passes alternate; the ratios are medians of those
within a round: of views a second of the machine's clock, and of views a second of CPU time of all consumers, which
other load moves less. `made of them` is the share of all views that any consumer made.

The ring of views is smaller than a sweep's (128 MiB), so that it has been written once before anything is measured, as
a sweep's has after its first 1,800 images: memory that is written for the first time takes a tenth of a view's time.

Memory is the proportional set size (PSS) of all consumers with `data.cache`, less that before the first image was read:
what they hold together, each shared page once.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from common import markdown, parser_of, report
from made_images import make_images

from bgsweep.augment.pipeline import ViewPipeline, ViewResult
from bgsweep.config import load
from bgsweep.data import open_splits
from bgsweep.data import shared_views as shared_module
from bgsweep.data.batch_maker import BatchMaker, Task, init_worker
from bgsweep.data.datasets.pack_writer import make_pack
from bgsweep.data.shared_views import shared_views
from bgsweep.data.sharing import Sharing, share_within

SPACES = Path(__file__).parents[1] / "search_spaces"
BATCH, TRIALS = 32, 4
RING, WARM_UP = 128 << 20, 4
BACKGROUNDS = {
    "different backgrounds": [(0.0, 0.0), (0.2, 0.0), (0.0, 0.2), (0.2, 0.2)],
    "different hyperparameters": [(0.2, 0.2)] * TRIALS,
}
Asked = tuple[int, bool]
"""An epoch, and if it is made with the others; as the first message, the consumer only says that it is here."""


def consume(pack: str, sweep: str, trial: int, background: tuple[float, float], cache: bool, pipe: Connection) -> None:
    """A consumer: waits for the number of an epoch, reads it, and gives the seconds of its CPU time."""
    remove, random = background
    words = [
        f"data.pack={pack}",
        "data.images=sample",
        "data.masks=null",
        "data.train=.",
        "data.validation=null",
        "data.test=null",
        "data.holdout=0.01",
    ]
    words += [f"data.cache={'true' if cache else 'false'}", "views.interpolation=linear"]
    words += [f"background.remove={remove}", f"background.random={random}"]
    experiment = load(SPACES / "moco_v2_imagenet.yaml", words).experiment
    init_worker()
    share_within(Sharing(sweep, str(trial), True) if sweep else None)
    dataset = open_splits(experiment.data).train
    pipeline = ViewPipeline(experiment.views, experiment.background)
    shared_module._MOST_BYTES = RING
    made, make = Counter[str](), pipeline.make

    def counted(*arguments: Any, **named: Any) -> ViewResult:
        made["views"] += 1
        return make(*arguments, **named)

    pipeline.make = counted  # type: ignore[method-assign]
    makers = {each: BatchMaker(dataset, pipeline, BATCH, BATCH, 0, 0) for each in (False, True)}
    makers[True].shared = shared_views(experiment, dataset, pipeline)
    buffers, whole = [np.empty((BATCH, size, size, 3), np.uint8) for size in pipeline.sizes], range(BATCH)
    before = pss()
    pipe.send(0.0)
    while (asked := pipe.recv()) is not None:
        epoch, together = asked
        maker, begun, before_it = makers[together], time.process_time(), made["views"]
        if together and maker.shared is not None:
            maker.shared.near(epoch * len(dataset))
        for step in range(len(dataset) // BATCH):
            maker.made(Task((epoch, step), whole, maker.order((epoch, step), whole)), buffers)
        views = len(dataset) // BATCH * BATCH * pipeline.n_views
        pipe.send((time.process_time() - begun, views, made["views"] - before_it))
    pipe.send(pss() - before)
    pipe.recv()  # all count at the same time


def pss() -> int:
    """The process's part of the memory that it has mapped, each page divided by the processes that share it."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


class Consumers:
    """Some consumers, started and waiting."""

    def __init__(self, pack: Path, sweep: str, backgrounds: list[tuple[float, float]], cache: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes = []
        for number, each in enumerate(backgrounds):
            here, there = context.Pipe()
            context.Process(target=consume, args=(str(pack), sweep, number, each, cache, there), daemon=True).start()
            there.close()  # so that a consumer that fails ends this process too
            self._pipes.append(here)
        for pipe in self._pipes:
            pipe.recv()

    def epoch(self, number: int, together: bool) -> tuple[float, float, float]:
        """Views a second of the clock, and of the CPU; and the share of them that was made."""
        begun = time.perf_counter()
        for pipe in self._pipes:
            pipe.send((number, together))
        found = [pipe.recv() for pipe in self._pipes]
        clock = time.perf_counter() - begun
        cpu, views, made = (sum(column) for column in zip(*found, strict=True))
        return views / clock, views / cpu, made / views

    def end(self) -> int:
        """Let them go; give the bytes that they hold together."""
        for pipe in self._pipes:
            pipe.send(None)
        held = sum(pipe.recv() for pipe in self._pipes)
        for pipe in self._pipes:
            pipe.send(None)
        return int(held)


def speeds(pack: Path, kind: str, rounds: int) -> dict[str, list[float]]:
    """Views a second in each round, separately and together."""
    consumers = Consumers(pack, f"benchmark {os.getpid()} {kind}", BACKGROUNDS[kind])
    consumers.epoch(0, False)  # maps memory, and decodes for the first time
    for number in range(rounds + 1, rounds + 1 + WARM_UP):
        consumers.epoch(number, True)
    found = defaultdict[str, list[float]](list)
    for number in range(1, rounds + 1):
        for together, name in ((False, "separate"), (True, "shared")):
            clock, cpu, made = consumers.epoch(number, together)
            found[name].append(clock)
            found[f"{name}_cpu"].append(cpu)
            found[f"{name}_made"].append(made)
    consumers.end()
    return found


def held(pack: Path, count: int, sweep: str) -> float:
    """MiB that so many consumers with `data.cache` hold after two epochs."""
    consumers = Consumers(pack, sweep, [(0.2, 0.2)] * count, cache=True)
    for number in range(2):
        consumers.epoch(number, False)
    return consumers.end() / 2**20


def ratio(found: dict[str, list[float]], over: str, under: str) -> float:
    """The median of the ratios within a round."""
    return statistics.median(one / other for one, other in zip(found[over], found[under], strict=True))


def measure(options: argparse.Namespace, pack: Path) -> tuple[str, dict[str, Any]]:
    """The tables, and the figures by name."""
    rows, figures = [], {}
    for kind in BACKGROUNDS:
        found = speeds(pack, kind, options.rounds)
        clock, cpu = ratio(found, "shared", "separate"), ratio(found, "shared_cpu", "separate_cpu")
        made = statistics.median(found["shared_made"])
        figures[kind.replace(" ", "_")] = {"clock": clock, "cpu": cpu, "made": made}
        medians = [statistics.median(found[name]) for name in ("separate_cpu", "shared_cpu")]
        rows.append([kind, *(f"{each:,.0f}" for each in medians), f"{cpu:.2f}", f"{clock:.2f}", f"{made:.3f}"])
    columns = [
        f"{TRIALS} trials with",
        "views/s of CPU, separate",
        "shared",
        "ratio",
        "ratio by the clock",
        "made of them",
    ]
    one, four = held(pack, 1, f"one {os.getpid()}"), held(pack, TRIALS, f"four {os.getpid()}")
    apart = held(pack, TRIALS, "")
    figures["memory"] = {"one": one, "four": four, "four_separate": apart, "ratio": four / one}
    memory = [
        ["one trial", f"{one:.0f}", "1.00"],
        [f"{TRIALS} trials of a sweep", f"{four:.0f}", f"{four / one:.2f}"],
        [f"{TRIALS} separate runs", f"{apart:.0f}", f"{apart / one:.2f}"],
    ]
    text = f"{markdown(columns, rows)}\n\n{markdown(['data.cache', 'MiB (PSS)', 'of one'], memory)}"
    return f"{text}\n\nLoad average {os.getloadavg()[1]:.0f}.", figures


def main() -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--images", type=Path, help="folder of JPEGs; without it they are made")
    parser.add_argument("--masks", type=Path, help="their masks")
    parser.add_argument("--count", type=int, default=256, help="number of images that are made")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        images, masks = options.images, options.masks
        if images is None:
            images, masks = make_images(Path(made), options.count)
        make_pack(str(images), str(masks), f"{made}/pack")
        text, figures = measure(options, Path(made) / "pack")
    report(options, "Trials that share their work", "python benchmarks/sharing.py", text, figures)


if __name__ == "__main__":
    main()
