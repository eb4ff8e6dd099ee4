"""Start, stop and resume of a training run at ImageNet's size: what each takes, and that nothing is lost.

    python benchmarks/campaign.py [--images 1281167] [--workers 2] [--steps 20] [--links FOLDER] [--record] [--json]

Images and masks are symbolic links to those of the embedded sample in 1,000 class folders (two inodes an image, removed
at the end unless `--links` says where they are or go). A tiny MoCo-v2 is trained by `bgsweep pretrain`:

 1. on all workers, with SIGTERM after half of the steps;
 2. again from there to the end of the epoch, an evaluation, and some steps of the next epoch, with another SIGTERM.
    Most of the epoch is skipped: the checkpoint's position, which alone decides the batches, is moved to its end;
 3. again from there, on all workers and, from a copy, on one, which must have the same losses.

Memory is given beyond that of the same processes with 30,000 images (private pages: USS). The exit code is 1 if
something is lost, a rank starts in more than 10 s or a process holds more than 30 MB.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import yaml
from common import markdown, parser_of, report
from million import CLASSES, link, probe

from bgsweep.data.datasets.bundled import ARCHIVE
from bgsweep.storage.layout import CHECKPOINT_FILE
from bgsweep.training.checkpoint import load_checkpoint, save_checkpoint

# Of fewer than 20,000 images all bytes are compared, and copies of images held out are not trained on.
SMALL, TEST = 30_000, 50_000
START_S, MEMORY_MB = 10.0, 30.0
PATIENCE = 900.0  # seconds without a note of a training process
SIMILAR = 0.02  # of losses, whose sums are in another order
TREE = {
    "experiment": {
        "data": {"validation": None, "holdout": 0.01, "test": "validation", "loader_workers": 1},
        "views": {"size": 24, "blur": 0.0},
        "background": {"remove": 0.2, "random": 0.2},
        "method": {"name": "moco_v2", "queue_size": 4096, "hidden_dim": 64, "embedding_dim": 32},
        "encoder": {"name": "resnet10", "width": 8, "stem": "small"},
        "training": {"epochs": 2, "batch_size": 32, "precision": "fp32"},
        "workers": {"device": "cpu"},
    },
    "evaluate": {"every": 1},
}


def make_links(folder: Path, images: int, test: int, classes: int = CLASSES) -> None:
    """Trees of links below a folder, in the layout of ImageNet, unless they are there."""
    if (folder / "complete").exists():
        return
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(folder / "distinct")
    for split, count, first in (("validation", test, images), ("train", images, 0)):
        sources = folder / "distinct" / "images" / split, folder / "distinct" / "masks" / split
        link(sources, folder, count, split, first, classes)
    (folder / "complete").touch()


class Command:
    """`bgsweep pretrain` on so many workers, stopped by SIGTERM when it has made enough steps."""

    def __init__(self, folder: Path, links: Path, store: Path, workers: int, groups: int, steps: int) -> None:
        self.store, self.workers = store, workers
        self._notes = Path(tempfile.mkdtemp(dir=folder))
        file = folder / "campaign.yaml"
        file.write_text(yaml.safe_dump(TREE))
        words = [f"data.images={links}/images", f"data.masks={links}/masks", f"workers.count={workers}"]
        arguments = [str(file), *words, f"method.split_bn={groups // workers}", "--store", str(store)]
        script = str(Path(__file__).with_name("watched.py"))
        self.began = time.time()
        self._log = (self._notes / "log").open("w")
        command = [sys.executable, script, str(self._notes), str(steps), "pretrain", *arguments]
        environment = os.environ | {"BGSWEEP_CACHE": str(folder / "cache")}
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT, env=environment)

    def stop_when(self, enough: Callable[[list[list[dict[str, Any]]]], bool]) -> "Notes":
        """Send SIGTERM when every worker's steps are enough, and wait for the end."""
        notes, last = Notes(self), time.time()
        while not (len(notes.steps) == self.workers and all(enough([each]) for each in notes.steps)):
            if self._process.poll() is not None or time.time() - last > PATIENCE:
                self._process.kill()
                raise SystemExit(f"the run ended or hung:\n{self.said()[-3000:]}")
            time.sleep(0.2)
            before, notes = notes, Notes(self)
            last = time.time() if notes.count > before.count else last
        asked = time.time()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE)
        found = Notes(self)
        found.stopping = time.time() - asked
        return found

    def said(self) -> str:
        return (self._notes / "log").read_text()

    def lines(self) -> list[list[dict[str, Any]]]:
        """The notes of each process."""
        files = sorted(self._notes.glob("*.jsonl"))
        return [[json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] for path in files]


class Notes:
    """The notes of a command's processes."""

    def __init__(self, command: Command) -> None:
        self._began, self._processes = command.began, command.lines()
        self.count = sum(map(len, self._processes))
        self.steps = [[each for each in lines if each["event"] == "step"] for lines in self._processes]
        self.stopping = 0.0

    def seconds(self) -> dict[str, float]:
        """From the command to the call of the slowest rank, from there to its opened images and to its first step; and
        of a core, which other work on the machine changes less."""
        called, opened, first = (self._times(event) for event in ("called", "opened", "step"))
        return {
            "from the command to a rank": max(called) - self._began,
            "a rank opens the images": max(b - a for a, b in zip(called, opened, strict=True)),
            "a rank's first step": max(b - a for a, b in zip(called, first, strict=True)),
            "a rank's first step, of a core": max(
                b - a for a, b in zip(self._times("called", "cpu"), self._times("step", "cpu"), strict=True)
            ),
        }

    def memory(self, kind: str) -> float:
        return float(max(each[kind] for each in self._events("memory")))

    def evaluations(self) -> list[dict[str, Any]]:
        return self._events("evaluation")

    def losses(self) -> dict[tuple[int, int], float]:
        """The mean loss over the ranks at each position that all of them have noted."""
        found = [{(each["epoch"], each["step"]): each["loss"] for each in steps} for steps in self.steps]
        return {at: mean(each[at] for each in found) for at in found[0] if all(at in each for each in found)}

    def _events(self, event: str) -> list[dict[str, Any]]:
        return [each for lines in self._processes for each in lines if each["event"] == event]

    def _times(self, event: str, clock: str = "time") -> list[float]:
        return [next(each[clock] for each in lines if each["event"] == event) for lines in self._processes]


def checkpoint(store: Path) -> Path:
    """The newest checkpoint of a store."""
    return max(store.glob(f"pretrain/**/{CHECKPOINT_FILE}"), key=lambda path: path.stat().st_mtime)


def position(store: Path) -> tuple[int, int]:
    state = load_checkpoint(checkpoint(store))
    return state["epoch"], state.get("step", 0)


def enough(epoch: int, steps: int) -> Callable[[list[list[dict[str, Any]]]], bool]:
    """True when so many steps of an epoch have been made."""
    return lambda found: sum(each["epoch"] == epoch for each in found[0]) >= steps


def rehearse(folder: Path, links: Path, options: argparse.Namespace) -> tuple[dict[str, float], dict[str, bool]]:
    """The figures of all runs over one set, and what must be right."""
    workers, half, store = options.workers, options.steps // 2, folder / f"store-{links.name}"

    def run(workers: int, store: Path, epoch: int, before: int = 0) -> Notes:
        command = Command(folder, links, store, workers, options.workers, before + half)
        return command.stop_when(enough(epoch, half))

    first = run(workers, store, 0)
    steps, stopped = first.steps[0][0]["steps"], position(store)
    state = load_checkpoint(checkpoint(store))
    save_checkpoint(checkpoint(store), {**state, "step": steps - half})
    second = run(workers, store, 1, before=half)
    left = position(store)
    shutil.copytree(store / "pretrain", folder / f"copy-{links.name}" / "pretrain")
    third = run(workers, store, 1)
    alone = run(1, folder / f"copy-{links.name}", 1)
    found = figures(first, second, third, alone)
    again, one = third.losses(), alone.losses()
    checks = {
        "stopped after the last step of all ranks": stopped == (0, len(first.steps[0])),
        "resumed there": min(second.losses()) == (0, steps - half),
        "stopped within the next epoch": left == (1, second.steps[0][-1]["step"] + 1),
        "all ranks made the same steps": all(len(set(map(len, each.steps))) == 1 for each in (first, second, third)),
        "every rank evaluated alike": len({str(each["values"]) for each in second.evaluations()}) == 1,
        "resumed there again, by all and by one": min(again) == min(one) == left,
        "one worker has the losses of all": found["largest difference of losses"] < SIMILAR,
    }
    return found, checks


def figures(first: Notes, second: Notes, third: Notes, alone: Notes) -> dict[str, float]:
    """Seconds of each phase, bytes of a rank and a loader process, and how far one worker's losses are from all's."""
    again, one = third.losses(), alone.losses()
    found = {f"{name}, first run": value for name, value in first.seconds().items()}
    found |= {f"{name}, resumed": value for name, value in third.seconds().items()}
    return found | {
        "one worker's first step, resumed": alone.seconds()["a rank's first step"],
        "evaluation": max(each["seconds"] for each in second.evaluations()),
        "from SIGTERM to the end": max(each.stopping for each in (first, second, third, alone)),
        "rank": first.memory("own"),
        "loader": first.memory("loader"),
        "largest difference of losses": max(abs(one[at] / again[at] - 1) for at in again.keys() & one.keys()),
    }


def measure(folder: Path, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    (folder / "cache").mkdir()
    links = options.links or folder / "large"
    made = time.time()
    make_links(links, options.images, min(TEST, options.images))
    made = time.time() - made
    make_links(folder / "small", SMALL, 1_000)
    data = {kind: f"{links}/{kind}" for kind in ("images", "masks")}
    scans = [probe(data, folder / "cache")[1] for _ in range(2)]
    small = rehearse(folder, folder / "small", options)
    large = rehearse(folder, links, options)
    body, found = told(small, large, scans, options)
    return f"{body}, links made in {made:.0f} s.", found


def told(
    small: tuple[dict[str, float], dict[str, bool]],
    large: tuple[dict[str, float], dict[str, bool]],
    scans: list[float],
    options: argparse.Namespace,
) -> tuple[str, dict[str, Any]]:
    """The tables of what `rehearse` gave for both sets."""
    more = {kind: (large[0].pop(kind) - small[0].pop(kind)) / 1e6 for kind in ("rank", "loader")}
    starts = [value for name, value in large[0].items() if "first step" in name and "of a core" not in name]
    checks = {name: value and small[1][name] for name, value in large[1].items()}
    checks |= {
        f"a rank starts within {START_S:g} s": max(starts) <= START_S,
        f"no process holds {MEMORY_MB:g} MB more": max(more.values()) <= MEMORY_MB,
    }
    rows = [["open the images, first on the machine, s", "", f"{scans[0]:.1f}"], ["again, s", "", f"{scans[1]:.1f}"]]
    for name, value in large[0].items():
        form, unit = (".1e", "") if "losses" in name else (".1f", ", s")
        rows.append([f"{name}{unit}", f"{small[0][name]:{form}}", f"{value:{form}}"])
    rows += [[f"{name} process, MB more", "", f"{value:.0f}"] for name, value in more.items()]
    body = markdown(["", f"{SMALL:,} images", f"{options.images:,} images"], rows)
    body += "\n\n" + markdown(["check", ""], [[name, "yes" if right else "**no**"] for name, right in checks.items()])
    body += f"\n\n{options.workers} workers with a loader process each, {options.steps} steps, "
    body += f"load {os.getloadavg()[1]:.1f}"
    return body, {"seconds": large[0], "small": small[0], "scans": scans, "more_mb": more, "checks": checks}


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--images", type=int, default=1_281_167)
    parser.add_argument("--links", type=Path, help="where the links are, or are made and stay")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20, help="before and after the skipped part of the epoch together")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        body, found = measure(Path(made), options)
    title = f"Start, stop and resume over {options.images:,} images"
    report(options, title, "python benchmarks/campaign.py", body, found)
    return 0 if all(found["checks"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
