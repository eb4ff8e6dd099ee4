"""slurm.sbatch under bash, as SLURM runs it, with stand-ins for SLURM, Ray and the sweep."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.validation import CLUSTER
from tests.command import take_ctrl_c
from tests.progress import files_in, wait_for

PROGRAMS = {
    "scontrol": "printf 'node1\\nnode2\\n'",
    "hostname": "echo 127.0.0.1",
    # Its own options end where the command begins.
    "srun": """echo "$@" >> "$SEEN/steps"; while [[ $1 == --* ]]; do shift; done; exec "$@" """,
    "ray": """if [[ $1 == start ]]; then exec sleep 600; fi""",
    "bgsweep": f"""exec {sys.executable} -c '
import pathlib, sys, time
from bgsweep.stopping import leave_on_sigterm
seen = pathlib.Path(sys.argv[1])
with leave_on_sigterm() as asked:
    (seen / "begun").touch()
    while not asked():
        time.sleep(0.05)
(seen / "stopped").touch()
sys.exit(130)' "$SEEN" """,
}


@pytest.fixture
def job(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The batch script of a job of two nodes, whose sweep has begun."""
    programs, seen = tmp_path / ".venv" / "bin", tmp_path / "seen"
    programs.mkdir(parents=True)
    seen.mkdir()
    for name, text in PROGRAMS.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{text}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    given = {
        "BGSWEEP_HOME": tmp_path,
        "HOME": tmp_path,
        "SEEN": seen,
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:1",
        "SLURM_JOB_ID": 7,
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_CPUS_PER_TASK": 48,
        "SLURM_GPUS_ON_NODE": 4,
        "PYTHONPATH": CLUSTER.parent,
    }
    process = subprocess.Popen(
        ["bash", CLUSTER / "slurm.sbatch", "mine.yaml"],
        env=os.environ | {name: str(value) for name, value in given.items()},
        start_new_session=True,
        preexec_fn=take_ctrl_c,
    )
    try:
        wait_for((seen / "begun").exists, lambda: files_in(tmp_path), "the sweep did not begin", process)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_a_signal_to_the_batch_script_stops_the_sweep_cleanly(
    job: "subprocess.Popen[bytes]", tmp_path: Path, stop: signal.Signals
) -> None:
    """Both `#SBATCH --signal=B:…` and `scancel --batch` signal the script alone, not what it runs."""
    job.send_signal(stop)
    assert job.wait(60) == 130
    assert (tmp_path / "seen" / "stopped").exists()
    assert not list(tmp_path.glob(".bgsweep-token-*"))


def test_steps_ask_for_the_cores_that_ray_is_told_of(job: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    job.terminate()
    assert job.wait(60) == 130
    steps = (tmp_path / "seen" / "steps").read_text(encoding="utf-8").splitlines()
    nodes = [step.split() for step in steps if "ray start" in step]
    assert len(nodes) == 2
    for words in nodes:
        assert "--cpus-per-task=48" in words[: words.index("ray")] and "--num-cpus=48" in words
