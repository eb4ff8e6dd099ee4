"""Costs around a run: Ray Train, a second worker, the command line's start, the memory of a process that trains.

    python benchmarks/around.py [--size 96] [--epochs 4] [--rounds 2] [--record] [--json]

The same experiment is trained in a process of its own, in two processes that share nothing but the machine, in two that
exchange gradients without Ray, by Ray Train with one worker and by Ray Train with two, in turn, round after round; each
process or worker has one core, a batch of 64 and makes its views itself. Times are of images trained, from the
first epoch's report to the last but one's (the last epoch is evaluated too), checkpoints included and start-up left
out; ratios are medians over the rounds. `two_apart_vs_one` is what the machine gives two processes: what is lost from
there to `two_exchanging_vs_one` is the exchange (as much at every ``--size``: a smaller share of a larger one's step),
and from there to `two_workers_vs_one` what Ray's own processes take where the workers leave them no core. `import_s`
and `help_s` are medians of fresh processes. Memory is what a training process holds resident, and what of it is its
own.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from common import below, markdown, parser_of, report
from sweep import watch

STARTS = 11
BATCH, IMAGES = 64, 960
HOMES = {
    "in-process": (1, 0),
    "two processes apart": (2, 0),
    "two processes, gradients exchanged": (2, 2),
    "Ray Train, one worker": (1, 1),
    "Ray Train, two workers": (1, 2),
}
"""Processes that are started, and how many workers share a batch; 0: no Ray."""

EXPERIMENT = {
    "data": {"images": "sample", "resize": 120, "cache": True, "loader_workers": 0},
    "background": {"remove": 0.2, "random": 0.2},
    "method": {"queue_size": 896, "hidden_dim": 256},
    "encoder": {"name": "resnet18"},
    "workers": {"device": "cpu"},
}
PROBE = """
import json, sys, time
from pathlib import Path
import psutil, torch
from bgsweep.config import load
from bgsweep.distributed.ray_train import RayTraining
from bgsweep.distributed.train import train
from bgsweep.training.run import Run, limit_threads
from bgsweep.distributed.session import ray_session

def trainer():
    family = psutil.Process().children(recursive=True)
    workers = [child for child in family if "RayTrainWorker" in " ".join(child.cmdline())]
    return workers[0] if workers else psutil.Process()

def on_epoch(metrics, checkpoint):
    stamps.append(time.perf_counter())
    if len(stamps) == 2:
        found = trainer().memory_full_info()
        memory.extend([found.rss, found.uss])

def train_exchanging(file, folder, rank):
    limit_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}.met", rank=rank, world_size=2)
    run = Run(file, rank, 2)
    while not run.finished:
        metrics = run.step_epoch()
        if rank == 0:
            run.save(folder)
        on_epoch(metrics, folder)

if __name__ == "__main__":
    workers, rank, stamps, memory = int(sys.argv[2]), int(sys.argv[3]), [], []
    file = load(Path(sys.argv[1]), [f"workers.count={max(1, workers)}"])
    folder = Path(sys.argv[1]).parent / "store"
    if rank >= 0:
        train_exchanging(file, folder, rank)
    elif workers:
        with ray_session(workers):
            RayTraining(file, str(folder), on_epoch, 1).run()
    else:
        train(file, folder, on_epoch)
    print(json.dumps([(stamps[-2] - stamps[0]) / (len(stamps) - 2), *memory]))
"""


def trained(processes: int, workers: int, size: int, epochs: int) -> tuple[float, int, int]:
    """Seconds an image, and resident and private bytes of a process that trains."""
    batch = BATCH * max(1, workers)
    training = {"batch_size": batch, "epochs": epochs}
    tree = {"experiment": {**EXPERIMENT, "views": {"size": size}, "training": training}, "evaluate": {"every": epochs}}
    with tempfile.TemporaryDirectory() as place:

        def one(number: int) -> list[float]:
            file = files[0] if workers else files[number]  # one experiment together, or one each
            rank = number if workers == processes == 2 else -1
            command = [sys.executable, str(probe), str(file), str(workers), str(rank)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            return list(json.loads(done.stdout.splitlines()[-1]))

        probe = Path(place, "probe.py")
        probe.write_text(PROBE, encoding="utf-8")
        files = [Path(place, str(number), "file.yaml") for number in range(processes)]
        for file in files:
            file.parent.mkdir()
            file.write_text(yaml.safe_dump(tree), encoding="utf-8")
        with ThreadPoolExecutor(processes) as pool:
            epoch, resident, private = zip(*pool.map(one, range(processes)), strict=True)
    trainings = 1 if workers else processes
    return max(epoch) / trainings / (IMAGES // batch * batch), int(max(resident)), int(max(private))


def start_seconds(*arguments: str) -> float:
    """Median seconds of fresh Python processes."""
    times = []
    for _ in range(STARTS):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def trial_memory() -> int:
    """Private bytes of the actor of a sweep's trials, of a network of no size to speak of."""
    with tempfile.TemporaryDirectory() as place:
        return max(actor for _, _, actor in watch(Path(place, "sweep"), 2)[1])


def measure(size: int, epochs: int, rounds: int) -> tuple[dict[str, list[float]], dict[str, tuple[int, int]]]:
    """Each home's seconds an image, interleaved, and its resident and private bytes."""
    seconds: dict[str, list[float]] = {home: [] for home in HOMES}
    memory = {}
    for _ in range(rounds):
        for home, (processes, workers) in HOMES.items():
            took, *held = trained(processes, workers, size, epochs)
            memory[home] = held[0], held[1]
            seconds[home].append(took)
    return seconds, memory


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--size", type=int, default=96, help="pixels of a view")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    seconds, memory = measure(options.size, options.epochs, options.rounds)

    def ratio(one: str, other: str) -> float:
        return round(statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True)), 4)

    alone, apart, exchanging, one, two = HOMES
    found: dict[str, Any] = {
        "ray_train_vs_in_process": ratio(one, alone),
        "two_workers_vs_one": ratio(one, two),
        "two_apart_vs_one": ratio(alone, apart),
        "two_exchanging_vs_one": ratio(alone, exchanging),
        "import_s": round(start_seconds("-c", "import bgsweep"), 3),
        "help_s": round(start_seconds("-m", "bgsweep.cli", "--help"), 3),
        "python_s": round(start_seconds("-c", "pass"), 3),
        "trial_actor_private_mb": round(trial_memory() / 1e6),
    }
    rows = [
        [home, f"{1 / statistics.median(seconds[home]):.0f}", *(f"{held / 1e6:.0f}" for held in memory[home])]
        for home in HOMES
    ]
    body = markdown(["home", "images/s", "resident, MB", "private, MB"], rows)
    words = f"ResNet-18, {options.size} px, batch {BATCH} a worker, {options.epochs} epochs, {options.rounds} rounds"
    body += below(words, found)
    report(options, "Around a run: Ray Train, workers, start, memory", "python benchmarks/around.py", body, found)


if __name__ == "__main__":
    main()
