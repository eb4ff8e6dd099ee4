"""A sweep whose driver dies or is told to stop, seen from other shells."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.command import bgsweep
from tests.faults.sweeps import outcome

TINY = Path(__file__).parents[1] / "tiny.yaml"
SWEEP = [
    str(TINY),
    "space.background.remove={uniform: [0.0, 0.8]}",
    "space.points=[{}]",
    "search.concurrent=1",
    "evaluate.variant=mixed_rand",
    "register.name=tiny",
]


def told(folder: Path, *arguments: str) -> tuple[int, Any, str]:
    """Exit code, answer and log of a command."""
    done = bgsweep(*arguments, "--json", folder=folder)
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def begin(folder: Path, until: str, *overrides: str) -> subprocess.Popen[str]:
    """A sweep's driver, once it has told of something."""
    command = [sys.executable, "-m", "bgsweep.cli", "sweep", *SWEEP, *overrides]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    log = ""
    while until not in log:
        line = process.stderr.readline()
        assert line, log
        log += line
    return process


@pytest.mark.slow
def test_a_sweep_resumed_after_its_driver_was_killed_equals_one_never_disturbed(tmp_path: Path) -> None:
    import mlflow

    settings = ["training.epochs=4", "search.trials=3", "search.grace_epochs=2"]
    (tmp_path / "quiet").mkdir()
    (tmp_path / "killed").mkdir()
    code, undisturbed, log = told(tmp_path / "quiet", "sweep", *SWEEP, *settings)
    assert code == 0, log

    process = begin(tmp_path / "killed", "t01 running", *settings)
    time.sleep(1)
    process.kill()
    process.wait()
    (name,) = [folder.name for folder in (tmp_path / "killed/bgsweep_runs/sweeps").iterdir()]
    _, seen, _ = told(tmp_path / "killed", "status", name)
    assert seen["sweeps"][0]["state"] == "dead"
    code, resumed, log = told(tmp_path / "killed", "sweep", "--resume", name)
    assert code == 0, log
    assert outcome(resumed) == outcome(undisturbed)
    assert resumed["best"]["metrics"] == undisturbed["best"]["metrics"]

    client = mlflow.MlflowClient(tracking_uri=resumed["tracking_uri"])
    (experiment,) = [found for found in client.search_experiments() if found.name == "tiny"]
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 4 and {run.info.status for run in runs} == {"FINISHED"}
    history = client.get_metric_history(resumed["trials"][1]["run_id"], "loss")
    assert sorted({point.step for point in history}) == list(range(1, resumed["trials"][1]["epochs"] + 1))

    code, _, log = told(tmp_path / "killed", "sweep", "--resume", name)
    assert code == 2 and "has ended; there is nothing to resume" in log
    code, _, log = told(tmp_path / "killed", "sweep", "--resume", name + "0")
    assert code == 2 and f"did you mean {name}?" in log


@pytest.mark.slow
def test_a_running_sweep_is_seen_not_started_twice_and_ended_from_outside(tmp_path: Path) -> None:
    settings = ["training.epochs=3", "search.trials=200", "search.scheduler=none"]
    process = begin(tmp_path, "t01 running", *settings)
    try:
        _, seen, _ = told(tmp_path, "status")
        (sweep,) = seen["sweeps"]
        assert sweep["state"] == "running" and sweep["trials"][0]["status"] == "completed"
        code, _, log = told(tmp_path, "sweep", *SWEEP, *settings)
        assert code == 2 and f"error: {sweep['sweep']}: the very same sweep is running" in log
        code, _, log = told(tmp_path, "stop", sweep["sweep"])
        assert code == 0, log
        assert process.stderr is not None
        rest = process.stderr.read()
        assert process.wait(timeout=600) == 0, rest
    finally:
        process.kill()
    _, seen, _ = told(tmp_path, "status", sweep["sweep"])
    assert seen["sweeps"][0]["state"] == "ended"
    assert {trial["status"] for trial in seen["sweeps"][0]["trials"]} <= {"completed", "stopped"}
    resumed = ("sweep", "--resume", sweep["sweep"])
    code, again, log = told(tmp_path, *resumed, "register.name=other", "evaluate.variant=original")
    assert code == 0, log
    assert again["model"]["name"] == "other"
    assert outcome(again) == outcome(seen["sweeps"][0]), "the trials that the stop has left out are not trained"
    code, _, log = told(tmp_path, *resumed, "search.trials=201")
    assert code == 2 and "resume it with evaluate.variant=mixed_rand first" in log
    code, _, log = told(tmp_path, "stop", sweep["sweep"])
    assert code == 2 and "is not running (ended)" in log
