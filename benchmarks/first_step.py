"""From a sweep's command to its first trial's first step: when what is there, and what it takes of a core.

    python benchmarks/first_step.py [--rounds 3] [--before CHECKOUT] [--record]

The quickstart's sweep with an empty store, interrupted once a trial has begun. Times are of the wall, from the command
on: the first of Ray's worker processes starts (Ray runs); the sweep's journal begins (one trial has been set up, MLflow
is open); the first trial has been set up and begins its first epoch. CPU seconds are those of all the sweep's processes
until then, which other programs on the machine change less. `--before` measures another checkout of bgsweep in turn
with this one; the ratios are medians over the rounds' pairs.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from common import below, markdown, parser_of, report

from bgsweep.sweep.events import Owned, Started
from bgsweep.sweep.journal import read_journal

HERE = Path(__file__).parents[1]
MARKS = ("Ray runs", "journal begins", "first step", "CPU s")
_LOOK_EVERY, _PATIENCE = 0.05, 600.0  # seconds


class Family:
    """A process and all that it starts: their CPU seconds, also of those that have ended, and when workers start."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._seconds: dict[tuple[int, float], float] = {}
        self.first_worker: float | None = None

    def look(self) -> None:
        for process in [self._root, *self._root.children(recursive=True)]:
            try:
                with process.oneshot():
                    used, began = process.cpu_times(), process.create_time()
                    line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            self._seconds[process.pid, began] = used.user + used.system
            if "default_worker" in line and self.first_worker is None:
                self.first_worker = began

    def seconds(self) -> float:
        return sum(self._seconds.values())


def started(checkout: Path) -> tuple[float, ...]:
    """Run a sweep of a checkout up to its first step; give MARKS."""
    with tempfile.TemporaryDirectory() as place:
        words = ["sweep", str(HERE / "search_spaces" / "quickstart.yaml"), "--store", "runs", "--json"]
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        began = time.time()
        with Path(place, "log").open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "bgsweep.cli", *words], cwd=place, env=environment, stdout=log, stderr=log
            )
        family, found = Family(process.pid), None
        while found is None and process.poll() is None and time.time() - began < _PATIENCE:
            family.look()
            found = _first_step(Path(place, "runs", "sweeps"))
            time.sleep(_LOOK_EVERY)
        if found is None or family.first_worker is None:
            process.kill()
            sys.exit(Path(place, "log").read_text(encoding="utf-8"))
        process.terminate()  # SIGINT is ignored by what a script runs in the background
        process.wait()
        journal, step = found
        return family.first_worker - began, journal - began, step - began, family.seconds()


def _first_step(sweeps: Path) -> tuple[float, float] | None:
    """When a sweep's journal began, and its first trial, if that has."""
    for folder in sweeps.glob("*"):
        events = read_journal(folder)
        began = next((event.time for event in events if isinstance(event, Owned)), None)
        step = next((event.time for event in events if isinstance(event, Started)), None)
        if began is not None and step is not None:
            return began, step
    return None


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path, help="another checkout of bgsweep")
    options = parser.parse_args()
    sides = {"before": options.before.absolute()} if options.before else {}
    sides["now"] = HERE
    took: dict[str, list[tuple[float, ...]]] = {side: [] for side in sides}
    for _ in range(options.rounds):
        for side, checkout in sides.items():
            took[side].append(started(checkout))
            print(side, *(f"{mark} {value:.1f}" for mark, value in zip(MARKS, took[side][-1], strict=True)), flush=True)
    medians = {side: [statistics.median(each) for each in zip(*rounds, strict=True)] for side, rounds in took.items()}
    rows = [[side, *(f"{value:.1f}" for value in values)] for side, values in medians.items()]
    found = {
        side: dict(zip(MARKS, [round(value, 2) for value in values], strict=True)) for side, values in medians.items()
    }
    if "before" in took:
        pairs = zip(took["before"], took["now"], strict=True)
        ratios = [
            statistics.median(each)
            for each in zip(*([b / a for a, b in zip(*pair, strict=True)] for pair in pairs), strict=True)
        ]
        rows.append(["now by before", *(f"{ratio:.2f}" for ratio in ratios)])
        found["ratio"] = dict(zip(MARKS, [round(ratio, 3) for ratio in ratios], strict=True))
    body = markdown(["s", *MARKS], rows)
    body += below(f"{options.rounds} rounds", found)
    report(options, "From a sweep's command to its first step", "python benchmarks/first_step.py", body, found)


if __name__ == "__main__":
    main()
