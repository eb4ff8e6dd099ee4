"""The fourth part: Ray, Tune and MLflow on the GPU: a sweep whose trials share it, a killed trial, a Ray Train run."""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.gpu.rows import MISSED, Rows, Values
from benchmarks.gpu.workloads import Scale, device_of

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "search_spaces" / "quickstart.yaml"
LIMIT = 180.0  # seconds of a row; the sweep took 163 on an H100 beside other work, with twice the epochs
RAY_TRAIN = """
import json, sys
from pathlib import Path
from bgsweep.config import load
from bgsweep.distributed.session import ray_session
from bgsweep.distributed.ray_train import RayTraining

if __name__ == "__main__":
    epochs = []
    with ray_session(2, dashboard=False):
        config = load(Path(sys.argv[1]), sys.argv[3:], searched=False)
        checkpoint = RayTraining(config, sys.argv[2], lambda metrics, _: epochs.append(metrics), 1).run()
    print(json.dumps({"checkpoint": str(checkpoint), "epochs": epochs}))
"""


def run(rows: Rows, toy: bool) -> None:
    for needed in ("ray", "mlflow"):  # without them the part is skipped before anything starts
        importlib.import_module(needed)

    platform = Platform(Scale(toy), device_of(toy))
    # The longest last, which on an H100 left nothing to the others.
    rows.measure("a killed trial resumes", platform.killed, seconds=0 if toy else 30, limit=LIMIT)
    rows.measure("Ray Train, one worker", platform.ray_train, seconds=0 if toy else 20, limit=LIMIT)
    rows.measure("sweep, four trials on one device", platform.sweep, seconds=0 if toy else 60, limit=LIMIT)


class Platform:
    """The quickstart's sweep with fewer epochs, on one device."""

    def __init__(self, scale: Scale, device: str) -> None:
        self.scale, self.device = scale, device

    def settings(self, trials: int, epochs: int) -> list[str]:
        """Overrides of the quickstart; the toy's network is smaller, and its trials take a core each."""
        gpu = ["search.gpus=0.25"] if self.device == "cuda" else []
        small = ["encoder.width=4", "method.hidden_dim=32", "data.resize=24", "views.size=16"] if self.scale.toy else []
        return [
            f"workers.device={self.device}",
            *gpu,
            *small,
            f"search.trials={trials}",
            f"training.epochs={epochs}",
            f"training.checkpoint_every={max(1, epochs // 4)}",
            f"evaluate.every={max(1, epochs // 4)}",
            "evaluate.repeats=1",
            "evaluate.variant=original",  # others are composed anew, for which the platform is not needed
            f"search.grace_epochs={max(1, epochs // 4)}",
            "optimizer.warmup_epochs=1",
        ]

    def sweep(self) -> Values:
        """Four trials at once, to a registered champion."""
        trials, epochs = self.scale.pick((4, 8), (2, 2))
        with tempfile.TemporaryDirectory(prefix="bgsweep-gpu-") as folder:
            began = time.time()  # as the journal's times
            process = _begin(Path(folder), *self.settings(trials, epochs))
            result = _ended(process, Path(folder))
            ended = time.time()
            events = _events(Path(folder))
        at_once = _most_at_once(events)
        best = result["best"]["metrics"]
        if result["model"]["alias"] != "champion":
            raise AssertionError(f"no champion was registered: {result['model']}")
        return {
            "seconds": round(ended - began, 1),
            **_phases(events, began, ended),
            "trials": len(result["trials"]),
            "trials_at_once": at_once,
            "champion_knn_top1": best["knn_top1"],
            "champion": f"{result['model']['name']} version {result['model']['version']}",
            MISSED: "" if self.scale.toy or at_once == trials else f"wanted: {trials} trials at once",
        }

    def killed(self) -> Values:
        """One trial's process is killed after its first checkpoint; the trial goes on from there."""
        trials, epochs = self.scale.pick((1, 8), (1, 4))
        with tempfile.TemporaryDirectory(prefix="bgsweep-gpu-") as name:
            folder = Path(name)
            process = _begin(folder, *self.settings(trials, epochs), "search.scheduler=none")
            try:
                _wait(lambda: any(each["event"] == "checkpoint" for each in _events(folder)), process, folder)
                victim = _trials(process.pid)[0]
                os.kill(victim.pid, signal.SIGKILL)
                killed = time.time()
                result = _ended(process, folder)
            finally:
                _kill(process)
            after = [each["time"] for each in _events(folder) if each["event"] == "result" and each["time"] > killed]
        failures = [trial["failures"] for trial in result["trials"]]
        statuses = {trial["status"] for trial in result["trials"]}
        if sum(failures) != 1 or statuses != {"completed"}:
            raise AssertionError(f"trials ended as {sorted(statuses)} with {failures} failures")
        return {"failures": failures, "seconds_to_next_result": round(min(after) - killed, 1) if after else "none"}

    def ray_train(self) -> Values:
        """One worker of Ray Train, in a process group of its own."""
        epochs = self.scale.pick(8, 3)
        gpu = ["workers.gpus=1"] if self.device == "cuda" else []
        with tempfile.TemporaryDirectory(prefix="bgsweep-gpu-") as folder:
            program = Path(folder, "ray_train.py")
            program.write_text(RAY_TRAIN, encoding="utf-8")
            command = [sys.executable, str(program), str(QUICKSTART), str(Path(folder, "store", "run"))]
            began = time.monotonic()
            done = subprocess.run(
                [*command, *self.settings(2, epochs), *gpu],
                cwd=ROOT,
                env=_environment(),
                stdout=subprocess.PIPE,
                text=True,
                check=False,
            )
            seconds = time.monotonic() - began
        if done.returncode or not done.stdout.strip():
            raise AssertionError(f"the run ended with code {done.returncode}; the part's log has its messages")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        last = found["epochs"][-1]
        if last["epoch"] != epochs:
            raise AssertionError(f"the run reported {last['epoch']} of {epochs} epochs")
        return {"seconds": round(seconds, 1), "epochs": epochs, "images_per_second": last["images_per_second"]}


def _environment() -> dict[str, str]:
    """The processes' own, with this checkout first; they take no part in any cluster or server around them."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    kept = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    return {**kept, "PYTHONPATH": path}


def _begin(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bgsweep.cli", "sweep", str(QUICKSTART), *overrides, "--json"]
    with (folder / "log").open("w", encoding="utf-8") as log:
        return subprocess.Popen(command, cwd=folder, env=_environment(), stdout=subprocess.PIPE, stderr=log, text=True)


def _ended(process: subprocess.Popen[str], folder: Path) -> dict[str, Any]:
    """The output of a sweep, which must have ended well."""
    out, _ = process.communicate()
    log = (folder / "log").read_text(encoding="utf-8")
    print(log, file=sys.stderr)
    if process.returncode:
        raise AssertionError(f"the sweep ended with code {process.returncode}: {log.strip().splitlines()[-1:]}")
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def _events(folder: Path) -> list[dict[str, Any]]:
    """The events of the folder's sweep so far."""
    from bgsweep.sweep.journal import read_journal

    sweeps = folder.glob("bgsweep_runs/sweeps/*")
    return [event.public() for sweep in sweeps if sweep.is_dir() for event in read_journal(sweep)]


def _phases(events: list[dict[str, Any]], began: float, ended: float) -> dict[str, float]:
    """The seconds of a sweep before its first trial, to the first result, to the last trial's end, and after it."""
    times = {
        kind: [each["time"] for each in events if each["event"] == kind] for kind in ("started", "result", "ended")
    }
    marks = [began, min(times["started"]), min(times["result"]), max(times["ended"]), ended]
    names = ("before_trials_s", "first_result_s", "later_results_s", "after_trials_s")
    return {name: round(later - earlier, 1) for name, earlier, later in zip(names, marks, marks[1:], strict=False)}


def _most_at_once(events: list[dict[str, Any]]) -> int:
    """The largest number of trials that ran at the same time."""
    now = most = 0
    for event in events:
        now += {"started": 1, "ended": -1}.get(event["event"], 0)
        most = max(most, now)
    return most


def _wait(happened: Any, process: subprocess.Popen[str], folder: Path) -> None:
    while not happened():
        if process.poll() is not None:
            raise AssertionError(f"the sweep ended too early: {(folder / 'log').read_text(encoding='utf-8')[-500:]}")
        time.sleep(0.2)


def _trials(driver: int) -> list[psutil.Process]:
    """The processes below a driver in which trials run, by the name that Tune gives them."""
    found = []
    for child in psutil.Process(driver).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "Trial of " in " ".join(child.cmdline()):
                found.append(child)
    return found


def _kill(process: subprocess.Popen[str]) -> None:
    """End a sweep that is still running, with all processes below it."""
    if process.poll() is None:
        for child in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            with contextlib.suppress(psutil.Error):
                child.kill()
