"""Several workers on Ray Train: one that is killed is made good from the checkpoint, and leaves no trace."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import torch

from tests.progress import files_in, output_of, wait_for

TINY = Path(__file__).parents[1] / "tiny.yaml"
OVERRIDES = ["workers.count=2", "training.epochs=8"]


def pretrain(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bgsweep.cli", "pretrain", str(TINY), *OVERRIDES, "--json"]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def training_workers(driver: int) -> list[psutil.Process]:
    """Ray Train's worker processes below a driver, which Ray names after their class."""
    children = psutil.Process(driver).children(recursive=True)
    return [child for child in children if "RayTrainWorker" in " ".join(_command(child))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def result(process: subprocess.Popen[str], folder: Path) -> tuple[dict[str, Any], str]:
    out, log = output_of(process, lambda: files_in(folder))
    assert process.returncode == 0, log
    return json.loads(out.splitlines()[-1]), log


def test_a_worker_killed_in_mid_epoch_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "quiet").mkdir()
    (tmp_path / "killed").mkdir()
    undisturbed, _ = result(pretrain(tmp_path / "quiet"), tmp_path / "quiet")

    process = pretrain(tmp_path / "killed")
    wait_for(
        lambda: list((tmp_path / "killed").glob("bgsweep_runs/pretrain/*/checkpoint_*/state.pt")),
        lambda: files_in(tmp_path / "killed"),
        "no checkpoint was written",
        process,
    )
    victims = training_workers(process.pid)
    assert len(victims) == 2
    os.kill(victims[1].pid, signal.SIGKILL)
    disturbed, log = result(process, tmp_path / "killed")

    assert disturbed["metrics"]["epoch"] == 8
    assert [line.split("  ")[0] for line in log.splitlines() if line.startswith("epoch ")] == [
        f"epoch {epoch}/8" for epoch in range(1, 9)
    ], "an epoch is missing or told twice"
    for name in ("loss", "knn_top1", "embedding_std"):
        assert disturbed["metrics"][name] == undisturbed["metrics"][name]
    states = [torch.load(Path(run["checkpoint"], "state.pt"), weights_only=True) for run in (undisturbed, disturbed)]
    for name, value in states[0]["method"].items():
        assert torch.equal(value, states[1]["method"][name]), f"{name} differs"
    assert not [child for child in psutil.process_iter() if child.pid in {victim.pid for victim in victims}]
