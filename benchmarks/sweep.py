"""The cost of one more trial, and the memory of a sweep's processes over many trials of one tiny epoch each.

Command:  python benchmarks/sweep.py [--trials 64] [--record]
Measures: seconds of a whole sweep, from command to end, for all trials and for a quarter of them, one trial at a
          time: their difference by that of the trials is what one more costs, whatever it consists of; private
          memory (USS) of the driver and of the trials' one actor after an eighth of the trials and after the last.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml
from common import below, markdown, parser_of, report

from bgsweep.sweep.journal import read_records

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


def watch(folder: Path, trials: int) -> tuple[float, list[tuple[int, int, int]]]:
    """Run a sweep; give its seconds, and (trials ended, driver's bytes, actor's bytes) twice a second."""
    file = {"experiment": EXPERIMENT, "space": SPACE, "search": {"trials": trials, "concurrent": 1}}
    folder.mkdir()
    (folder / "tiny.yaml").write_text(yaml.safe_dump(file), encoding="utf-8")
    command = [sys.executable, "-m", "bgsweep.cli", "sweep", "tiny.yaml", "--json"]
    began, sizes = time.monotonic(), []
    with (folder / "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=log)
    while process.poll() is None:
        actors = _actors(process.pid)
        if actors:
            sizes.append((_ended(folder), _private(process.pid), _private(actors[0])))
        time.sleep(0.5)
    seconds = time.monotonic() - began
    if process.returncode or _ended(folder) != trials:
        sys.exit((folder / "log").read_text(encoding="utf-8"))
    return seconds, [size for size in sizes if size[1] and size[2]]


def _ended(folder: Path) -> int:
    places = folder.glob("bgsweep_runs/sweeps/*")
    return sum(record.status != "running" for place in places for record in read_records(place).values())


def _actors(driver: int) -> list[int]:
    found = psutil.Process(driver).children(recursive=True)
    return [child.pid for child in found if child.is_running() and "Trial of " in " ".join(_cmdline(child))]


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
    few = options.trials // 4
    with tempfile.TemporaryDirectory() as place:
        quarter, _ = watch(Path(place, "few"), few)
        whole, sizes = watch(Path(place, "many"), options.trials)
    one_more = (whole - quarter) / (options.trials - few)
    early, late = next(size for size in sizes if size[0] >= options.trials // 8), sizes[-1]
    found = {
        "seconds": {str(few): round(quarter, 1), str(options.trials): round(whole, 1)},
        "seconds_per_further_trial": round(one_more, 3),
        "driver_mb": [round(early[1] / 1e6), round(late[1] / 1e6)],
        "actor_mb": [round(early[2] / 1e6), round(late[2] / 1e6)],
        "after_trials": [early[0], late[0]],
    }
    columns = [f"s for {few} trials", f"s for {options.trials}", "s for one more", "driver, MB", "actor, MB"]
    memory = [f"{found[f'{who}_mb'][0]} -> {found[f'{who}_mb'][1]}" for who in ("driver", "actor")]
    body = markdown(columns, [[f"{quarter:.0f}", f"{whole:.0f}", f"{one_more:.2f}", *memory]])
    body += below(f"memory after {early[0]} and {late[0]} trials", found)
    report(options, "One more trial of a sweep", f"python benchmarks/sweep.py --trials {options.trials}", body, found)


if __name__ == "__main__":
    main()
