"""The scripts of examples/ that use bgsweep; the other two: test_tutorial.py and sweep/test_policy.py."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.command import fresh

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script: str, folder: Path, before: str = "") -> "subprocess.CompletedProcess[str]":
    done = fresh(
        f"{before} {shlex.join(['python', str(EXAMPLES / script.partition(' ')[0])])} {script.partition(' ')[2]}",
        folder,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_a_method_of_ones_own_is_checked_and_trained(tmp_path: Path) -> None:
    printed = run("own_method.py", tmp_path).stdout
    assert re.match(r"checked\n\{'align': [\d.]+, 'uniform': -[\d.]+, 'validation/knn/top1': 0\.\d+\}\n$", printed), (
        printed
    )
    assert len(list(tmp_path.glob("bgsweep_runs/pretrain/*/state.pt"))) == 1


@pytest.mark.slow
def test_a_model_of_timm_is_audited_with_random_weights_where_there_is_no_network(tmp_path: Path) -> None:
    printed = run("audit_timm.py test_resnet", tmp_path, "HF_HUB_OFFLINE=1").stdout
    assert printed.startswith("RANDOM weights, since there are no others here: timm:test_resnet: ")
    values = {name: float(value) for name, value in re.findall(r"^(\S+) +(-?[\d.]+)%$", printed, re.MULTILINE)}
    gap = values["linear/mixed_same"] - values["linear/mixed_rand"]
    assert values["linear/original"] > 15 and values["linear/bg_gap"] == pytest.approx(gap, abs=0.11)  # ten classes
    assert "sample/test: 200 images" in printed and not list(tmp_path.glob("*.pth"))


@pytest.mark.faults
def test_a_sweep_from_python_and_its_champion(tmp_path: Path) -> None:
    printed = run("sweep.py", tmp_path).stdout
    assert re.search(r"^best +\{'original': 0\.\d+, .*'mixed_rand': 0\.\d+", printed, re.MULTILINE), printed
    assert len(re.findall(r"^\d +t0\d +completed ", printed, re.MULTILINE)) == 3
    assert printed.endswith("torch.Size([1, 64]) features of from-python version 1 (champion)\n")
