"""A large sweep's small files: the journal of 1,000 trials of 200 epochs, and what reading it takes.

    python benchmarks/large_sweep.py [--driver] [--trials 1000] [--epochs 200] [--record] [--json]

The trials are not trained. Their results, of as many metrics as real trials report, with all digits, go through the
driver's callback, its journal and its searcher's replay; `bgsweep status` and `bgsweep report` then read them as
commands of their own. Times are processor seconds; those of commands include Python's start and all imports. Memory is
the driver's private memory (USS) after a tenth of the trials and after all.

With `--driver` it is a whole sweep: the driver as `bgsweep sweep` runs it, with Ray Tune, an MLflow server, collection
of checkpoints, final evaluation and registration. Only the trials' training is replaced: they are actors that report
random metrics, of ten epochs at a time.
"""

import contextlib
import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
from common import markdown, parser_of, report
from ray.tune.result import SHOULD_CHECKPOINT
from tracking import mlflow_server

from bgsweep.config import SweepConfig, load
from bgsweep.storage.uri import Uri
from bgsweep.sweep import driver, search
from bgsweep.sweep.callbacks import SweepCallback
from bgsweep.sweep.events import Event, replay
from bgsweep.sweep.journal import Journal, read_journal
from bgsweep.sweep.manifest import write_manifest
from bgsweep.sweep.ownership import Ownership
from bgsweep.sweep.schedulers import build_scheduler
from bgsweep.sweep.searcher import NUMBER, TuneSearcher, name_of
from bgsweep.sweep.trial import dump, trainable
from bgsweep.sweep.trial_record import TrialRecord
from bgsweep.tracking.provenance import owner

TINY = Path(__file__).parents[1] / "tests" / "tiny.yaml"
METRICS = ("loss", "embedding_std", "lr", "images_per_second", "data_wait", "knn_top1", "epoch_seconds")


class NoTracker:
    """A tracker that writes nothing: MLflow is measured by benchmarks/tracking.py."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: f"{random.getrandbits(128):032x}"


class Progress:
    """A progress display that shows nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def write(folder: Path, config: SweepConfig) -> dict[str, float]:
    """Play the driver: propose, report and end all trials; give the seconds and the memory that it takes."""
    draws = random.Random(0)
    records: dict[str, TrialRecord] = {}
    journal = Journal(folder, Ownership.claim(folder, folder.parents[1], 0), records, config.search.trials)
    searcher = TuneSearcher(config, journal=journal)
    monitor = SweepCallback(config, journal, NoTracker(), "parent", Progress(), records)  # type: ignore[arg-type]
    memory, began = {}, time.process_time()
    for number in range(config.search.trials):
        proposal = searcher.suggest(str(number))
        trial: Any = SimpleNamespace(config=proposal, run_metadata=None)
        monitor.on_trial_start(0, [], trial)
        for epoch in range(1, config.experiment.training.epochs + 1):
            metrics = {name: draws.random() for name in METRICS}
            history = [{"epoch": epoch, **metrics}]
            monitor.on_trial_result(0, [], trial, {"history": history, "epoch": epoch, **metrics})
        searcher.on_trial_complete(str(number), {"epoch": config.experiment.training.epochs, **metrics})
        monitor.on_trial_complete(0, [], trial)
        if number + 1 in (config.search.trials // 10, config.search.trials):
            memory[number] = psutil.Process().memory_full_info().uss / 2**20
    first, last = memory.values()
    return {"write_s": time.process_time() - began, "memory_first_mib": first, "memory_last_mib": last}


class Untrained:
    """The actions of a trial that is not trained; the rest of its class is that of real trials.

    ``epochs`` and ``every`` are the config's, ``checkpoint`` the file that each trial writes as its own.
    """

    epochs: int
    every: int
    checkpoint: str

    def setup(self, config: dict[str, Any]) -> None:
        self.began_with = name_of(config[NUMBER])
        self.draws, self.epoch = random.Random(config[NUMBER]), 0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        first, self.epoch = self.epoch + 1, min(self.epoch + self.every, self.epochs)
        history = [
            {"epoch": epoch, **{name: self.draws.random() for name in METRICS if name != "knn_top1"}}
            for epoch in range(first, self.epoch + 1)
        ]
        history[-1]["knn_top1"] = self.draws.random()
        done = self.epoch == self.epochs
        return {**history[-1], "history": history, "warnings": [], "done": done, SHOULD_CHECKPOINT: done}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        shutil.copy(self.checkpoint, checkpoint_dir)


def drive(store: Path, config: SweepConfig, address: str) -> dict[str, float]:
    """Run the sweep ``large``, whose trials are `Untrained`; give times, memory, and what MLflow has of it."""
    memory: dict[int, float] = {}
    with multiprocessing.get_context("spawn").Pool(1) as apart:  # the driver does not import torch
        checkpoint = apart.apply(write_checkpoint, (config, store / "prepared"))

    def untrained(config: SweepConfig, sweep: Uri, board: tuple[str, str]) -> Any:
        given = {"epochs": config.experiment.training.epochs, "every": config.evaluate.every, "checkpoint": checkpoint}
        real = trainable(config, sweep, board)
        return type(real.__name__, (Untrained, real), given)

    class Watched(SweepCallback):
        """Notes the driver's memory after a tenth of the trials, half of them, and all."""

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            super().on_trial_complete(iteration, trials, trial, **info)
            ended = sum(record.status != "running" for record in self.records.values())
            if ended in (total // 10, total // 2, total):
                memory[ended] = psutil.Process().memory_full_info().uss / 2**20

    total = config.search.trials
    for module, name, other in ((search, "trainable", untrained), (driver, "SweepCallback", Watched)):
        setattr(module, name, other)
    os.environ["MLFLOW_TRACKING_URI"] = address
    began, used = time.perf_counter(), time.process_time()
    result = driver.sweep(config, store, "large")
    found = {"whole_s": time.perf_counter() - began, "driver_s": time.process_time() - used}
    assert len(result["trials"]) == total and result["model"]["version"]
    first, half, last = memory.values()
    return found | {"memory_first_mib": first, "memory_half_mib": half, "memory_last_mib": last, **recorded(result)}


def write_checkpoint(config: SweepConfig, folder: Path) -> str:
    """The checkpoint of an untrained encoder."""
    from bgsweep.training.run import Run

    folder.mkdir()
    return str(Run(config).save(folder))


def recorded(result: dict[str, Any]) -> dict[str, float]:
    """The numbers of trials and of epochs that MLflow has, the latter of every 25th trial."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=result["tracking_uri"])
    ended = [trial for trial in result["trials"] if client.get_run(trial["run_id"]).info.status == "FINISHED"]
    epochs = [len(client.get_metric_history(trial["run_id"], "loss")) for trial in result["trials"][::25]]
    return {"mlflow_trials": len(ended), "mlflow_epochs": sum(epochs) / len(epochs)}


def resume(folder: Path, config: SweepConfig) -> dict[str, float]:
    """Seconds of what a resumed driver does with the journal before its first trial."""
    began = time.process_time()
    past: list[Event] = read_journal(folder)
    replay(past)
    build_scheduler(config, past)
    TuneSearcher(config, past)
    return {"resume_s": time.process_time() - began}


def command(*words: str) -> float:
    """Processor seconds of a command: a machine that others use stretches those of the clock."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "bgsweep.cli", *words], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--driver", action="store_true", help="a whole sweep, with Ray Tune and an MLflow server")
    options = parser.parse_args()
    space = ["space.background.remove={uniform: [0.0, 0.8]}", "space.optimizer.lr={loguniform: [0.001, 1.0]}"]
    sizes = [f"search.trials={options.trials}", f"training.epochs={options.epochs}", "search.algorithm=random"]
    whole = ["search.scheduler=none", "evaluate.every=10", f"training.checkpoint_every={options.epochs}"]
    config = load(TINY, [*space, *sizes, *(whole if options.driver else ())])
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as opened:
        store, folder = Path(place), Path(place) / "sweeps" / "large"
        if options.driver:
            found = drive(store, config, opened.enter_context(mlflow_server()))
        else:
            manifest = {"file": dump(config), "digest": "d", "parent": "p", "owner": owner(), "began": time.time()}
            write_manifest(folder, manifest)
            found = write(folder, config)
        small = [*folder.glob("journal/*"), *folder.glob("records-*"), *folder.glob("*.json")]
        found["journal_mb"] = sum(path.stat().st_size for path in {*small}) / 1e6
        found |= resume(folder, config)
        found["status_s"] = min(command("status", "large", "--store", place) for _ in range(3))
        page = store / "page.html"
        found["report_s"] = min(command("report", "large", "--store", place, "--out", str(page)) for _ in range(2))
        found["report_mb"] = page.stat().st_size / 1e6
        found["checkpoints"] = len(list(folder.rglob("state.pt")))
    words = f"python benchmarks/large_sweep.py {'--driver ' if options.driver else ''}--trials {options.trials}"
    words += f" --epochs {options.epochs}"
    body = markdown(["", f"{options.trials} trials of {options.epochs} epochs"], rows_of(found, options))
    report(options, "A whole large sweep" if options.driver else "Large sweeps", words, body, found)


def rows_of(found: dict[str, float], options: Any) -> list[list[str]]:
    """The table's rows."""
    reports = options.trials * options.epochs
    if options.driver:
        memory = " to ".join(f"{found[f'memory_{when}_mib']:.0f}" for when in ("first", "half", "last"))
        rows = [
            ["the whole sweep", f"{found['whole_s']:.0f} s, of the driver's core {found['driver_s']:.0f} s"],
            ["driver, per epoch", f"{1e3 * found['driver_s'] / reports:.2f} ms"],
            ["driver's memory, a tenth, half, all", f"{memory} MiB"],
            [
                "MLflow's server has",
                f"{found['mlflow_trials']:.0f} trials, of each {found['mlflow_epochs']:.1f} epochs",
            ],
            ["checkpoints kept", f"{found['checkpoints']:.0f}"],
        ]
    else:
        rows = [
            ["driver, per epoch", f"{1e3 * found['write_s'] / reports:.2f} ms"],
            ["driver's memory", f"{found['memory_first_mib']:.0f} to {found['memory_last_mib']:.0f} MiB"],
        ]
    return [
        ["journal", f"{found['journal_mb']:.1f} MB, {1e6 * found['journal_mb'] / reports:.0f} B an epoch"],
        *rows,
        ["reading all to resume", f"{found['resume_s']:.1f} s"],
        ["bgsweep status", f"{found['status_s']:.2f} s"],
        ["bgsweep report", f"{found['report_s']:.1f} s, {found['report_mb']:.1f} MB"],
    ]


if __name__ == "__main__":
    main()
