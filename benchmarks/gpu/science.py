"""The fifth part: MoCo-v2 on Imagenette with and without background augmentation, side by side on the device."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.rows import Rows, Skipped, Values
from benchmarks.gpu.workloads import Scale, device_of
from bgsweep.data.cores import usable_cores

PROGRAM = Path(__file__).parents[1] / "imagenette.py"
ARMS = ("none", "background")
_START = 25.0  # seconds that unpacking and starting two processes take on an H100's host
_FIT = 20.0  # and those in which the number of epochs is found


def run(rows: Rows, toy: bool) -> None:
    found: dict[str, Values] = {}

    def both() -> Values:
        found.update(train(rows.left - _START, Scale(toy), rows.folder))
        return {f"{arm}_knn_top1": found[arm]["knn_top1"] for arm in ARMS}

    rows.measure("MoCo-v2 on Imagenette, side by side", both, seconds=0 if toy else 60)
    for arm, values in found.items():
        rows.measure(f"MoCo-v2 on Imagenette, {arm}", lambda values=values: dict(values))


def train(seconds: float, scale: Scale, out: Path) -> dict[str, Values]:
    """The last evaluation of each arm."""
    path = os.environ.get("BGSWEEP_IMAGENETTE")
    if not path or not Path(path).exists():
        raise Skipped("no archive of Imagenette: give --imagenette PATH or set BGSWEEP_IMAGENETTE")
    with tempfile.TemporaryDirectory(prefix="bgsweep-gpu-") as folder:
        place = Path(path)
        if place.is_file():
            shutil.unpack_archive(place, folder, filter="data")
            place = next(each.parents[1] for each in Path(folder).glob("*/images/train"))
        runs = Runs(place, Path(folder), scale, out)
        minutes = max(0.5, (seconds - _FIT) / 60)
        # Measured side by side too; both must train for as long, since the rate's course follows the number of epochs.
        fits = {"": {"epochs": 1}} if scale.toy else runs.side_by_side("--minutes", minutes, "--fit")
        epochs = min(fit["epochs"] for fit in fits.values())
        found = runs.side_by_side("--epochs", epochs, "--every", max(1, epochs // 5), "--json")
        return {arm: values[-1] for arm, values in found.items()}


@dataclass(frozen=True)
class Runs:
    """Runs of both arms at the same time, with half of the cores each."""

    place: Path
    folder: Path
    scale: Scale
    out: Path

    def side_by_side(self, *options: Any) -> dict[str, Any]:
        """The last line of the output, by arm."""
        running = [(arm, self._begin(arm, options)) for arm in ARMS]
        try:
            ended = {arm: process.communicate()[0] for arm, process in running}
        finally:
            for _, process in running:
                process.kill()
        if any(process.returncode for _, process in running):
            raise AssertionError(f"a run ended with codes {[process.returncode for _, process in running]}")
        return {arm: json.loads(said.splitlines()[-1]) for arm, said in ended.items()}

    def _begin(self, arm: str, options: Sequence[Any]) -> "subprocess.Popen[str]":
        loaders = self.scale.pick(min(16, max(1, usable_cores() // len(ARMS) - 1)), 0)
        command: list[Any] = [sys.executable, PROGRAM, self.place, "--methods", "moco_v2", "--arms", arm, *options]
        command += ["--device", device_of(self.scale.toy), "--out", self.folder / "runs" / arm]
        command += ["--set", f"data.loader_workers={loaders}", *self.scale.pick(_FAST, _SMALL)]
        with (self.out / f"science-{arm}.log").open("a", encoding="utf-8") as log:
            return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=log, text=True)


# Views of 128 px cost a GPU less than their images cost the cores.
_FAST = ["data.cache=true", "views.photometric=device"]
_SMALL = [
    "encoder.name=resnet10",
    "encoder.width=4",
    "encoder.stem=small",
    "views.size=16",
    "training.batch_size=16",
    "method.queue_size=32",
    "method.hidden_dim=16",
]
