"""A large sweep's small files: the journal of 1,000 trials of 200 epochs, and what reading it takes.

    python benchmarks/large_sweep.py [--trials 1000] [--epochs 200] [--record] [--json]

The trials are not trained. Their results, of as many metrics as real trials report, with all digits, go through the
driver's callback, its journal and its searcher's replay; `bgsweep status` and `bgsweep report` then read them as
commands of their own. Times are processor seconds; those of commands include Python's start and all imports. Memory is
the driver's private memory (USS) after a tenth of the trials and after all.
"""

import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
from common import markdown, parser_of, report

from bgsweep.config import SweepConfig, load
from bgsweep.sweep.callbacks import SweepCallback
from bgsweep.sweep.events import Event, TrialRecord, replay
from bgsweep.sweep.journal import Journal, read_journal
from bgsweep.sweep.manifest import write_manifest
from bgsweep.sweep.ownership import Ownership
from bgsweep.sweep.schedulers import build_scheduler
from bgsweep.sweep.searcher import TuneSearcher
from bgsweep.sweep.trial import dump
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
    options = parser.parse_args()
    space = ["space.background.remove={uniform: [0.0, 0.8]}", "space.optimizer.lr={loguniform: [0.001, 1.0]}"]
    sizes = [f"search.trials={options.trials}", f"training.epochs={options.epochs}", "search.algorithm=random"]
    config = load(TINY, [*space, *sizes])
    with tempfile.TemporaryDirectory() as place:
        store, folder = Path(place), Path(place) / "sweeps" / "large"
        manifest = {"file": dump(config), "digest": "d", "parent": "p", "owner": owner(), "began": time.time()}
        write_manifest(folder, manifest)
        found = write(folder, config)
        found["journal_mb"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
        found |= resume(folder, config)
        found["status_s"] = min(command("status", "large", "--store", place) for _ in range(3))
        page = store / "page.html"
        found["report_s"] = min(command("report", "large", "--store", place, "--out", str(page)) for _ in range(2))
        found["report_mb"] = page.stat().st_size / 1e6
    reports = options.trials * options.epochs
    rows = [
        ["journal", f"{found['journal_mb']:.1f} MB, {1e6 * found['journal_mb'] / reports:.0f} B an epoch"],
        ["driver, per epoch", f"{1e3 * found['write_s'] / reports:.2f} ms"],
        ["driver's memory", f"{found['memory_first_mib']:.0f} to {found['memory_last_mib']:.0f} MiB"],
        ["reading all to resume", f"{found['resume_s']:.1f} s"],
        ["bgsweep status", f"{found['status_s']:.2f} s"],
        ["bgsweep report", f"{found['report_s']:.1f} s, {found['report_mb']:.1f} MB"],
    ]
    body = markdown(["", f"{options.trials} trials of {options.epochs} epochs"], rows)
    report(options, "Large sweeps", f"python benchmarks/large_sweep.py --trials {options.trials}", body, found)


if __name__ == "__main__":
    main()
