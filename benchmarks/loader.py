"""Batches from several processes: the local loader, a Ray cluster's, and Ray Data, against one process alone.

    python benchmarks/loader.py [--rounds 4] [--record] [--json]

Views of the embedded images, enlarged to 375 px, by MoCo-v2's recipe with background augmentation, in batches of
32. Whoever would train only counts them. Everything is on this machine: a cluster's batches come through Ray's object
store, but over no network. The local loader is measured before Ray is started, whose daemons want a part of the cores
too; what needs Ray is measured under it, beside one process alone under it. `apart` are processes that make batches
beside one another and hand nothing over: what the machine gives several of them, and no loader can exceed. Times are of
the wall, from an epoch's seventh batch to its last, which leaves start-up out, in turn, round after round; shares are
of so many times one process's throughput, medians over the rounds.
"""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from common import below, markdown, parser_of, report

from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config import Data, Experiment, load
from bgsweep.data import open_splits
from bgsweep.data.batch_maker import BatchMaker
from bgsweep.data.loader import Batches
from bgsweep.distributed.session import ray_session
from bgsweep.distributed.view_workers import RayFeed
from bgsweep.errors import UserError
from bgsweep.training.run import limit_threads

# An even number of the epoch's 30 batches remain, so that of two processes neither ends before the other.
BATCH, AHEAD = 32, 6
ALONE = "here, alone"
Epoch = Callable[[int], Iterator[Any]]
Timed = Callable[[int], float]
"""Makes an epoch, whose number it is given, and says how many seconds a batch took."""


def experiment() -> Experiment:
    """MoCo-v2's recipe for ImageNet, with background augmentation, on the embedded images."""
    file = Path(__file__).parents[1] / "search_spaces" / "moco_v2_imagenet.yaml"
    return load(file, ["data.images=sample", "background.remove=0.2", "background.random=0.2"]).experiment


def batches(data: Data, seed: int = 0, **options: Any) -> Batches:
    pipeline = ViewPipeline(experiment().views, experiment().background)
    return Batches(open_splits(data).train, pipeline, BATCH, seed, **options)


class RayData:
    """The same maker of batches as a map over a Ray dataset of places, in actors, with its order preserved."""

    def __init__(self, batches: Batches, actors: int) -> None:
        self.maker, self.steps, self.actors = batches._maker, batches.steps_per_epoch, actors

    def __call__(self, epoch: int) -> Iterator[Any]:
        import ray

        ray.data.DataContext.get_current().execution_options.preserve_order = True
        ray.data.DataContext.get_current().enable_progress_bars = False
        places = [{"epoch": epoch, "step": step} for step in range(self.steps)]
        made = ray.data.from_items(places, override_num_blocks=self.steps).map_batches(
            _Mapped,
            fn_constructor_args=(self.maker,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=self.actors),
            num_cpus=1,
        )
        return iter(made.iter_batches(batch_size=BATCH))


class _Mapped:
    def __init__(self, maker: BatchMaker) -> None:
        limit_threads(1)
        self.maker = maker

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        batch = self.maker[int(rows["epoch"][0]), int(rows["step"][0])]
        assert not isinstance(batch, UserError), batch
        return {"first": batch.views[0].numpy(), "second": batch.views[1].numpy()}


class Apart:
    """Processes that each make an epoch's batches at the same time and say only how long theirs took."""

    def __init__(self, data: Data, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes = []
        for seed in range(count):
            ours, theirs = context.Pipe()
            context.Process(target=_alone, args=(data, seed, theirs), daemon=True).start()
            self.pipes.append(ours)

    def __call__(self, epoch: int) -> float:
        for pipe in self.pipes:
            pipe.send(epoch)
        return float(1 / sum(1 / pipe.recv() for pipe in self.pipes))


def _alone(data: Data, seed: int, pipe: Any) -> None:
    limit_threads(1)
    made = batches(data, seed)
    with suppress(EOFError):  # the benchmark is over
        while True:
            pipe.send(seconds(made.epoch(pipe.recv())))


def timed(epoch: Epoch) -> Timed:
    return lambda number: seconds(epoch(number))


Rivals = dict[str, tuple[int, Timed]]
"""How many processes each has, and its epochs."""


def without_ray(data: Data) -> Rivals:
    found: Rivals = {ALONE: (1, timed(batches(data).epoch)), "apart, 2": (2, Apart(data, 2))}
    return found | {f"local, {count}": (count, timed(batches(data, workers=count).epoch)) for count in (1, 2)}


def under_ray(data: Data) -> Rivals:
    def elsewhere(count: int) -> Epoch:
        there = data.model_copy(update={"loader": "cluster", "loader_workers": count})
        return batches(there, feed=RayFeed(there)).epoch

    found: Rivals = {f"{ALONE}, beside Ray": (1, timed(batches(data).epoch))}
    found |= {f"cluster, {count}": (count, timed(elsewhere(count))) for count in (1, 2)}
    return found | {f"Ray Data, {count}": (count, timed(RayData(batches(data), count))) for count in (1, 2)}


def measured(rivals: Rivals, rounds: int) -> dict[str, tuple[float, float]]:
    """Each one's images a second, and their share of so many times what the first one makes."""
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for number in range(rounds + 1):
        for name, (_, epoch) in rivals.items():
            print(f"round {number} of {rounds}: {name}", file=sys.stderr, flush=True)
            took = epoch(number)
            if number:  # the first one only warms up
                times[name].append(took)
    alone = next(iter(times.values()))
    found = {}
    for name, (count, _) in rivals.items():
        shares = (one / (other * count) for one, other in zip(alone, times[name], strict=True))
        found[name] = BATCH / statistics.median(times[name]), statistics.median(shares)
    return found


def seconds(epoch: Iterator[Any], ahead: int = AHEAD) -> float:
    """Of a batch, once the first ones, which several processes begin together, are through."""
    for _ in range(ahead):
        next(epoch)
    began = time.perf_counter()
    count = sum(1 for _ in epoch)
    return (time.perf_counter() - began) / count


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    limit_threads(1)
    data = Data(resize=375)
    speeds = measured(without_ray(data), options.rounds)
    with ray_session(4):
        speeds |= measured(under_ray(data), options.rounds)
    found = {name.replace(", ", "_").replace(" ", "_"): round(share, 3) for name, (_, share) in speeds.items()}
    rows = [[name, f"{speed:.0f}", f"{share:.2f}"] for name, (speed, share) in speeds.items()]
    body = markdown(["who makes the views, processes", "images/s", "share of as many times one alone"], rows)
    body += below(f"{options.rounds} rounds", found)
    report(options, "Batches from several processes", "python benchmarks/loader.py", body, found)


if __name__ == "__main__":
    main()
