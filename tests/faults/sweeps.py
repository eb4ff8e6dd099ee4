"""Small sweeps as processes of their own, and what a fault needs to find in them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from bgsweep.sweep.journal import read_journal
from bgsweep.sweep.trial import TITLE
from tests import progress
from tests.command import take_ctrl_c

TINY = Path(__file__).parents[1] / "tiny.yaml"
SPACE = ["space.background.remove={uniform: [0.0, 0.8]}", "space.optimizer.lr={loguniform: [0.01, 0.1]}"]
STILL = 1200.0
"""As `progress.STILL`: on a machine with a load of sixty on two cores a trial needs minutes to begin."""

SPEED = ("images_per_second", "data_wait")


def begin(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start ``bgsweep sweep --json`` in a folder, its log in ``log`` there."""
    command = [sys.executable, "-m", "bgsweep.cli", "sweep", *arguments, "--json"]
    with (folder / "log").open("a", encoding="utf-8") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **environment},
            preexec_fn=take_ctrl_c,
        )


def told(folder: Path) -> str:
    return (folder / "log").read_text(encoding="utf-8")


def ended(process: subprocess.Popen[str], folder: Path) -> dict[str, Any]:
    """The result of a sweep, which must have ended well."""
    try:
        out = output(process, folder)
    finally:
        process.kill()
    assert process.returncode == 0 and out, told(folder)
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def output(process: subprocess.Popen[str], folder: Path) -> str:
    """The lines that a sweep prints until its end."""
    return progress.output_of(process, lambda: progress.files_in(folder), STILL)[0]


def wait_for(happened: Callable[[], Any], process: subprocess.Popen[str], folder: Path) -> Any:
    """The first result of a call that is not None, while the sweep runs and writes."""
    return progress.wait_for(happened, lambda: progress.files_in(folder), lambda: told(folder), process, STILL)


def refused(process: subprocess.Popen[str], folder: Path) -> str:
    """The last line of a sweep that ends with an error that the user can fix."""
    output(process, folder)
    assert process.returncode == 2, told(folder)
    return told(folder).splitlines()[-1]


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The events of one kind in the journal of a folder's only sweep."""
    return [
        event.public()
        for place in folder.glob("bgsweep_runs/sweeps/*")
        for event in read_journal(place)
        if event.kind == kind
    ]


def actors(within: int) -> list[psutil.Process]:
    """The processes below another one in which trials run, by the names that Tune and Train give them."""
    found = []
    for child in psutil.Process(within).children(recursive=True):
        try:
            name = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if TITLE in name or "RayTrainWorker" in name:
            found.append(child)
    return found


def runs(uri: str) -> dict[str, Any]:
    """The MLflow runs of the experiment ``tiny`` by name, each once."""
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=uri)
    (experiment,) = [found for found in client.search_experiments() if found.name == "tiny"]
    found = client.search_runs([experiment.experiment_id])
    named = {run.info.run_name: run for run in found}
    assert len(named) == len(found), "a trial has two runs"
    return named


def outcome(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The values that must be equal in two sweeps of the same trials."""
    kept = ("id", "params", "fixed", "digest", "status", "epochs")
    return [
        {key: trial[key] for key in kept}
        | {"metrics": {name: value for name, value in trial["metrics"].items() if name not in SPEED}}
        for trial in found["trials"]
    ]
