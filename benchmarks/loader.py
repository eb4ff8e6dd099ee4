"""Batches from several processes: the local loader, a Ray cluster's, and Ray Data, against one process alone.

    python benchmarks/loader.py [--rounds 4] [--record] [--json]

Views of the embedded photographs, enlarged to 375 px, by MoCo-v2's recipe with background augmentation, in batches of
32. Whoever would train only counts them. Everything is on this machine: a cluster's batches come through Ray's object
store, but over no network. Times are of the wall, from an epoch's seventh batch to its last, which leaves start-up out,
in turn, round after round; shares are of so many times one process's throughput, medians over the rounds.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common import markdown, parser_of, report

from bgsweep.augment.views import ViewPipeline
from bgsweep.config import Data, load
from bgsweep.data import open_splits
from bgsweep.data.loader import Batches, Maker
from bgsweep.feed import RayFeed
from bgsweep.run import threads
from bgsweep.session import ray_session

BATCH, AHEAD = 32, 6
Epoch = Callable[[int], Iterator[Any]]


def batches(data: Data, **options: Any) -> Batches:
    file = Path(__file__).parents[1] / "search_spaces" / "moco_v2_imagenet.yaml"
    experiment = load(file, ["background.remove=0.2", "background.random=0.2"]).experiment
    pipeline = ViewPipeline(experiment.views, experiment.background)
    return Batches(open_splits(data).train, pipeline, BATCH, seed=0, **options)


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
    def __init__(self, maker: Maker) -> None:
        threads(1)
        self.maker = maker

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        batch = self.maker[int(rows["epoch"][0]), int(rows["step"][0])]
        return {"first": batch.views[0].numpy(), "second": batch.views[1].numpy()}


def contestants() -> dict[str, tuple[int, Epoch]]:
    """How many processes each has, and what gives an epoch's batches."""
    data = Data(resize=375)

    def elsewhere(count: int) -> Epoch:
        there = data.model_copy(update={"loader": "cluster", "loader_workers": count})
        return batches(there, feed=RayFeed(there)).epoch

    found: dict[str, tuple[int, Epoch]] = {"here, alone": (1, batches(data).epoch)}
    for count in (1, 2):
        found[f"local, {count}"] = count, batches(data, workers=count).epoch
    for count in (1, 2):
        found[f"cluster, {count}"] = count, elsewhere(count)
    for count in (1, 2):
        found[f"Ray Data, {count}"] = count, RayData(batches(data), count)
    return found


def seconds(epoch: Iterator[Any]) -> float:
    """Of a batch, once the first ones, which several processes begin together, are through."""
    for _ in range(AHEAD):
        next(epoch)
    began = time.perf_counter()
    count = sum(1 for _ in epoch)
    return (time.perf_counter() - began) / count


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    threads(1)
    with ray_session(4):
        rivals = contestants()
        times: dict[str, list[float]] = {name: [] for name in rivals}
        for number in range(options.rounds):
            for name, (_, epoch) in rivals.items():
                print(f"round {number + 1}: {name}", file=sys.stderr, flush=True)
                times[name].append(seconds(epoch(number)))
    alone = times["here, alone"]
    found = {}
    rows = []
    for name, (count, _) in rivals.items():
        pairs = zip(alone, times[name], strict=True)
        share = statistics.median(one / (other * count) for one, other in pairs)
        found[name.replace(", ", "_")] = round(share, 3)
        rows.append([name, f"{BATCH / statistics.median(times[name]):.0f}", f"{share:.2f}"])
    body = markdown(["who makes the views, processes", "photographs/s", "share of as many times one alone"], rows)
    body += f"\n\n{options.rounds} rounds, load {os.getloadavg()[1]:.1f}\n\n`{json.dumps(found)}`"
    report(options, "Batches from several processes", "python benchmarks/loader.py", body, found)


if __name__ == "__main__":
    main()
