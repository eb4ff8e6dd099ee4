"""Runs that go on from the checkpoint of one that differs only in how it was run."""

from pathlib import Path

import pytest
import torch

from bgsweep.config import load
from bgsweep.errors import UserError
from bgsweep.training import load_checkpoint
from bgsweep.training.resume import furthest
from bgsweep.training.run import Run
from tests.command import bgsweep

TINY = Path(__file__).parents[1] / "tiny.yaml"


def test_a_longer_run_with_other_loaders_goes_on_where_the_shorter_one_ended(tmp_path: Path) -> None:
    words = ["pretrain", TINY, "--store", "runs", "evaluate.every=9"]
    assert bgsweep(*words, "training.epochs=1", folder=tmp_path).returncode == 0
    (first,) = tmp_path.glob("runs/pretrain/*/state.pt")
    longer = bgsweep(*words, "training.epochs=2", "training.checkpoint_every=2", folder=tmp_path)
    assert longer.returncode == 0, longer.stderr
    assert f"goes on after 1 epoch and 0 steps from {first.parent}" in longer.stderr
    assert "training.epochs: 1 before, 2 now" in longer.stderr and "schedules now run over 2 epochs" in longer.stderr
    assert "epoch 2/2" in longer.stderr and "epoch 1/2" not in longer.stderr
    assert load_checkpoint(first)["epoch"] == 1  # the shorter run's own is kept
    other = bgsweep(*words, "training.epochs=2", "optimizer.lr=0.5", folder=tmp_path)
    assert "goes on" not in other.stderr and "epoch 1/2" in other.stderr
    fresh = bgsweep(*words, "training.epochs=3", "--fresh", folder=tmp_path)
    assert "goes on" not in fresh.stderr and "epoch 1/3" in fresh.stderr


def test_a_run_goes_on_with_another_memory_of_images_bit_for_bit(tmp_path: Path) -> None:
    whole, before = Run(load(TINY)), Run(load(TINY))
    for run in (whole, before):
        run.training.step_epoch()
    before.save(tmp_path / "one")
    now = Run(load(TINY, ["data.cache=false", "training.checkpoint_every=7"]))
    found = furthest(tmp_path, now.experiment)
    assert (
        found is not None
        and found.position == (1, 0)
        and set(found.changes)
        == {
            "data.cache",
            "training.checkpoint_every",
        }
    )
    now.restore(found.folder)
    assert now.training.step_epoch()["loss"] == whole.training.step_epoch()["loss"]
    pairs = zip(now.training.method.parameters(), whole.training.method.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_refusal_names_what_differs(tmp_path: Path) -> None:
    Run(load(TINY)).save(tmp_path)
    with pytest.raises(UserError, match=r"optimizer.lr: 0.03 before, 0.5 now; name this experiment's own"):
        Run(load(TINY, ["optimizer.lr=0.5", "data.cache=false"])).restore(tmp_path)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "state.pt").write_bytes(b"nothing")
    assert furthest(tmp_path, load(TINY).experiment) is None
