"""The fifth part: MoCo-v2 on Imagenette with and without background augmentation, side by side on the device."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.rows import MISSED, Rows, Skipped, Values
from benchmarks.gpu.workloads import Scale, device_of
from bgsweep.data.cores import usable_cores

PROGRAM = Path(__file__).parents[1] / "imagenette.py"
ARMS = ("none", "background")
_END = 5.0  # seconds in which runs are ended and their curves read
_SLOWER = 1.1  # both runs evaluate and save besides; with more epochs than fit, the rate would never fall


def run(rows: Rows, toy: bool) -> None:
    found: dict[str, Values] = {}

    def both() -> Values:
        found.update(train(rows.deadline - _END, Scale(toy), rows.folder / "science" / rows.run))
        unfinished = [values[MISSED] for values in found.values() if values[MISSED]]
        values = {f"{arm}_{key}": found[arm][key] for key in ("knn_top1", "epoch") for arm in ARMS}
        return {**values, MISSED: "; ".join(unfinished)}

    seconds = 0 if toy else 60
    rows.measure("MoCo-v2 on Imagenette, side by side", both, seconds, limit=max(1.0, rows.left) + 60)
    for arm, values in found.items():
        rows.measure(f"MoCo-v2 on Imagenette, {arm}", lambda values=values: dict(values))


def train(deadline: float, scale: Scale, out: Path) -> dict[str, Values]:
    """The last evaluation of each arm until the deadline, by `time.monotonic()`; the curves are kept in ``out``."""
    path = os.environ.get("BGSWEEP_IMAGENETTE")
    if not path or not Path(path).exists():
        raise Skipped("no archive of Imagenette: give --imagenette PATH or set BGSWEEP_IMAGENETTE")
    with tempfile.TemporaryDirectory(prefix="bgsweep-gpu-") as folder:
        place = Path(path)
        if place.is_file():
            shutil.unpack_archive(place, folder, filter="data")
            place = next(each.parents[1] for each in Path(folder).glob("*/images/train"))
        runs = Runs(place, out, scale, deadline)
        epochs = 1 if scale.toy else runs.fitting()
        runs.side_by_side("--epochs", epochs, "--every", max(1, epochs // 5))
    found = {arm: runs.last(arm, epochs) for arm in ARMS}
    for state in out.glob("*/*/state.pt"):  # of use to a run that goes on, which these do not
        state.unlink()
    return found


@dataclass(frozen=True)
class Runs:
    """Runs of both arms at the same time, with half of the cores each, that end at a deadline."""

    place: Path
    out: Path
    scale: Scale
    deadline: float

    def fitting(self) -> int:
        """The epochs of both: those of the slower, since the rate's course follows their number."""
        began = time.monotonic()
        said = self.side_by_side("--pace")
        if len(said) < len(ARMS):
            raise AssertionError(
                "two epochs took longer than the part's time; give it more: --only science --minutes 10"
            )
        took = time.monotonic() - began
        found = []
        for lines in said.values():
            pace = json.loads(lines.splitlines()[-1])
            # What the process took besides: imports, the device, and opening the images.
            start = took - 2 * pace["epoch"] - pace["evaluation"]
            left = self.deadline - time.monotonic() - start - 9 * _SLOWER * pace["evaluation"]
            found.append(max(1, int(left / (_SLOWER * pace["epoch"]))))
        return min(found)

    def last(self, arm: str, epochs: int) -> Values:
        """An arm's last evaluation, and the reason for which it is not that of the last epoch."""
        file = next(iter(self.out.glob(f"{arm}/*/curve.jsonl")), None)
        if file is None:
            raise AssertionError(f"{arm}: no epoch was evaluated within the part's time")
        values = json.loads(file.read_text(encoding="utf-8").splitlines()[-1])
        ended = values["epoch"] == epochs
        missed = "" if ended else f"{arm}: unfinished, ended by its time after epoch {values['epoch']:.0f} of {epochs}"
        return {"background": arm, "epochs": epochs, **values, MISSED: missed}

    def side_by_side(self, *options: Any) -> dict[str, str]:
        """The output of each arm that ended before the deadline; the others are ended there."""
        running = {arm: self._begin(arm, options) for arm in ARMS}
        ended = {}
        try:
            for arm, process in running.items():
                try:
                    ended[arm] = process.communicate(timeout=max(0.1, self.deadline - time.monotonic()))[0]
                except subprocess.TimeoutExpired:
                    process.terminate()
        finally:
            for process in running.values():
                if process.poll() is None:
                    process.kill()
                    process.wait()
        failed = {arm: running[arm].returncode for arm in ended if running[arm].returncode}
        if failed:
            raise AssertionError(f"a run ended with codes {failed}; see ARM.log beside the curves")
        return ended

    def _begin(self, arm: str, options: Sequence[Any]) -> "subprocess.Popen[str]":
        self.out.mkdir(parents=True, exist_ok=True)
        loaders = self.scale.pick(min(16, max(1, usable_cores() // len(ARMS) - 1)), 0)
        command: list[Any] = [sys.executable, PROGRAM, self.place, "--methods", "moco_v2", "--arms", arm, *options]
        command += ["--device", device_of(self.scale.toy), "--out", self.out / arm]
        command += ["--set", f"data.loader_workers={loaders}", *self.scale.pick(_FAST, _SMALL)]
        with (self.out / f"{arm}.log").open("a", encoding="utf-8") as log:
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
