"""Removal of what evaluations have kept and nothing reads any more."""

import os
from pathlib import Path
from time import time

import numpy as np
import pytest
import torch

from bgsweep.cli.main import main
from bgsweep.evaluation.evaluator import share
from bgsweep.evaluation.features import Features
from bgsweep.evaluation.kept import KeptFeatures, KeptValues

DAY = 86400


def aged(store: Path, days: float) -> list[Path]:
    """All files of a store, made so many days older."""
    files = [one for one in store.rglob("*") if one.is_file()]
    for file in files:
        os.utime(file, (time() - days * DAY,) * 2)
    return files


def kept(store: Path) -> None:
    """Features and results of two encoders, those of an audit, and a mask that it made."""
    made = Features(torch.ones(2, 3), torch.zeros(2, dtype=torch.int64))
    for folder in ("evaluations/a/features", "evaluations/b/features", "audit/c/d/features"):
        KeptFeatures(store / folder).get("train", lambda: made)
    for folder in ("evaluations/a/suite", "evaluations/b/suite"):
        KeptValues(store / folder).write("knn", [share("top1", np.ones(4))], {})
    (store / "audit" / "c" / "masks").mkdir(parents=True)
    (store / "audit" / "c" / "masks" / "1.png").write_bytes(b"mask")


def test_what_is_read_stays_and_the_rest_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept(tmp_path)
    assert len(aged(tmp_path, 40)) == 6
    assert KeptValues(tmp_path / "evaluations/a/suite").read("knn") is not None
    KeptFeatures(tmp_path / "evaluations/a/features").get("train", lambda: pytest.fail("computed again"))
    words = ["gc", "--evaluations", "30", "--store", str(tmp_path)]
    assert main([*words, "--dry-run"]) == 0
    assert "3 files" in (out := capsys.readouterr().out) and "would be removed" in out
    assert sum(one.is_file() for one in tmp_path.rglob("*")) == 6
    assert main(words) == 0 and "3 files" in capsys.readouterr().out
    left = {str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*") if one.is_file()}
    assert left == {"evaluations/a/features/train.safetensors", "evaluations/a/suite/knn.json", "audit/c/masks/1.png"}
    assert not (tmp_path / "evaluations" / "b").exists()
    assert main(words) == 0 and "0 files" in capsys.readouterr().out


def test_a_sweeps_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gc", "one", "--evaluations", "30", "--store", str(tmp_path)]) == 2
    assert "these are of no sweep" in capsys.readouterr().err
