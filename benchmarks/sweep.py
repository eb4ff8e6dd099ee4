"""What one more trial costs a sweep, and whether a sweep's processes grow: many trials of one tiny epoch each.

Command:  python benchmarks/sweep.py [--trials 64] [--record]
Measures: seconds from one trial's end to the next one's, by the sweep's journal, one trial at a time, once the first
          eighth of the trials is over; private memory (USS) of the driver and of the trials' one actor, at the same
          point and at the end of the last trial.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import yaml
from common import markdown, parser_of, report

EXPERIMENT = {
    "data": {"images": "sample", "resize": 24, "cache": True, "loader_workers": 0},
    "views": {"size": 16, "blur": 0.0},
    "background": {"remove": 0.3, "random": 0.4},
    "method": {"queue_size": 640, "hidden_dim": 16, "embedding_dim": 8, "momentum": 0.9},
    "encoder": {"name": "resnet10", "width": 4, "stem": "small"},
    "training": {"epochs": 1, "batch_size": 320},
    "workers": {"device": "cpu"},
}
SPACE = {"background.remove": {"uniform": [0.0, 0.8]}, "optimizer.lr": {"loguniform": [0.01, 0.1]}}


def watch(folder: Path, trials: int) -> tuple[list[float], list[tuple[int, int, int]]]:
    """Run the sweep; give the times at which its trials ended, and (trials ended, driver's bytes, actor's bytes)."""
    file = {"experiment": EXPERIMENT, "space": SPACE, "search": {"trials": trials, "concurrent": 1}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(file), encoding="utf-8")
    command = [sys.executable, "-m", "bgsweep.cli", "sweep", "tiny.yaml", "--json"]
    log = (folder / "log").open("w", encoding="utf-8")
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=log)
    sizes = []
    while process.poll() is None:
        times, actors = _ended(folder), _actors(process.pid)
        if times and actors and len(times) < trials:
            sizes.append((len(times), _private(process.pid), _private(actors[0])))
        time.sleep(0.5)
    if process.returncode:
        sys.exit((folder / "log").read_text(encoding="utf-8"))
    return _ended(folder), sizes


def _ended(folder: Path) -> list[float]:
    lines = [line for path in folder.glob("bgsweep_runs/sweeps/*/journal.jsonl") for line in path.open()]
    events: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith("\n")]
    return [event["time"] for event in events if event["event"] == "ended"]


def _actors(driver: int) -> list[int]:
    found = psutil.Process(driver).children(recursive=True)
    return [child.pid for child in found if child.is_running() and "ResourceTrainable" in " ".join(_cmdline(child))]


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _private(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_full_info().uss)
    except psutil.Error:
        return 0


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--trials", type=int, default=64)
    options = parser.parse_args()
    warm = options.trials // 8
    with tempfile.TemporaryDirectory() as place:
        times, sizes = watch(Path(place), options.trials)
    steps = [later - earlier for earlier, later in zip(times[warm:], times[warm + 1 :], strict=False)]
    early = next(size for size in sizes if size[0] >= warm and size[2])
    late = next(size for size in reversed(sizes) if size[2])
    found = {
        "seconds_per_trial_median": round(statistics.median(steps), 3),
        "seconds_per_trial_mean": round(statistics.mean(steps), 3),
        "driver_mb": [round(early[1] / 1e6), round(late[1] / 1e6)],
        "actor_mb": [round(early[2] / 1e6), round(late[2] / 1e6)],
        "after_trials": [early[0], late[0]],
    }
    columns = ["trials", "s per further trial, median", "mean", "driver MB after", "actor MB after"]
    memory = [f"{found[f'{who}_mb'][0]} -> {found[f'{who}_mb'][1]}" for who in ("driver", "actor")]
    row = [str(options.trials), f"{statistics.median(steps):.2f}", f"{statistics.mean(steps):.2f}", *memory]
    body = markdown(columns, [row])
    body += f"\n\nmemory after {early[0]} and {late[0]} trials, load {os.getloadavg()[1]:.1f}\n\n`{json.dumps(found)}`"
    report(options, "One more trial of a sweep", f"python benchmarks/sweep.py --trials {options.trials}", body, found)


if __name__ == "__main__":
    main()
