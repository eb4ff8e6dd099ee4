"""The overhead of the training loop: bgsweep's step against a bare PyTorch loop of the same networks.

    python benchmarks/step.py [--encoder resnet18] [--size 64] [--batch 64] [--rounds 9] [--record] [--json]

Both take the same uint8 batches of noise, precision, memory format and fused SGD; the bare loops are each method's
algorithm written down plainly, without metrics, schedule or checks. Their steps alternate in one process; a method's
ratio is the median over the rounds of bgsweep's time over the bare loop's (CPU time, or wall time with a GPU).
"""

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from common import markdown, parser_of, report
from gpu.bare import bare_step

from bgsweep.config import Experiment, resolve
from bgsweep.data.batch import Batch
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.training import Trainer, select_device
from bgsweep.training.run import limit_threads

METHODS = {
    "moco_v2": {"name": "moco_v2", "queue_size": 4096},
    "byol": {"name": "byol", "hidden_dim": 1024},
    "swav": {"name": "swav", "prototypes": 300},
    "supervised": {"name": "supervised"},
}


def bare_loop(training: Trainer, batch: Batch) -> Callable[[], None]:
    """A plain loop over a copy of the networks."""
    name, placement = training.experiment.method.name, training.placement
    return bare_step(name, copy.deepcopy(training.method), batch.views, batch.labels, placement.autocast)


def measure(name: str, options: argparse.Namespace) -> list[tuple[float, float]]:
    """Seconds of bgsweep's steps and of the bare loop's."""
    training, batch = started(_experiment(name, options)), noise(options.batch, options.size)
    loops = [lambda: training._step(batch, 1), bare_loop(training, batch)]
    times: list[tuple[float, float]] = []
    for number in range(options.rounds + 2):
        took = [seconds(loop) for loop in (loops if number % 2 else loops[::-1])]
        times.append((took[0], took[1]) if number % 2 else (took[1], took[0]))
    return times[2:]


def seconds(step: Callable[[], object]) -> float:
    cuda = torch.cuda.is_available()
    clock = time.perf_counter if cuda else time.process_time
    began = clock()
    step()
    if cuda:
        torch.cuda.synchronize()
    return clock() - began


def noise(batch: int, size: int) -> Batch:
    views = [torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8) for _ in range(2)]
    return Batch(views, torch.randint(0, 10, (batch,)), torch.arange(batch), {})


def experiment(method: str, encoder: dict[str, Any], size: int, **training: Any) -> Experiment:
    tree = {
        "views": {"size": size},
        "method": METHODS[method],
        "encoder": encoder,
        "training": training,
        "data": {"loader_workers": 0},
    }
    return resolve({"experiment": tree}).experiment


def started(experiment: Experiment) -> Trainer:
    training = Trainer(experiment, EmbeddedSample("train"), select_device(experiment))
    training.model.train()
    return training


def _experiment(method: str, options: argparse.Namespace) -> Experiment:
    encoder = {"name": options.encoder}
    return experiment(method, encoder, options.size, batch_size=options.batch, compile=options.compile)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="both loops with a compiled encoder")
    options = parser.parse_args()
    limit_threads(1)
    rows, ratios = [], {}
    for name in METHODS:
        times = measure(name, options)
        ours, bare = (1e3 * statistics.median(each) for each in zip(*times, strict=True))
        ratios[name] = round(statistics.median(one / other for one, other in times), 4)
        rows.append([name, f"{ours:.0f}", f"{bare:.0f}", f"{ratios[name]:.3f}"])
    where = select_device(_experiment("moco_v2", options)).describe()
    shape = f"{options.encoder}, {options.size} px, batch {options.batch}, {where}"
    body = markdown(["method", "bgsweep, ms a step", "bare, ms a step", "ratio"], rows)
    body += f"\n\n{shape}, one thread, {options.rounds} rounds, load {os.getloadavg()[1]:.1f}"
    report(options, "Training step against a bare loop", "python benchmarks/step.py", body, ratios)


if __name__ == "__main__":
    main()
