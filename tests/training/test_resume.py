"""Runs that go on from the checkpoint of one that differs only in how it was run."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from bgsweep.config import Experiment, load
from bgsweep.errors import UserError
from bgsweep.models.safe_load import load_safely
from bgsweep.training import load_checkpoint, resume, save_checkpoint
from bgsweep.training.resume import furthest, record_run
from bgsweep.training.run import Run
from tests.command import bgsweep
from tests.inputs import YAML, write_images

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
    same = bgsweep(*words, "training.epochs=2", "data.cache=false", "--json", folder=tmp_path)
    assert same.returncode == 0, same.stderr  # nothing is left to train, and the checkpoint is this run's
    assert load_checkpoint(Path(json.loads(same.stdout)["checkpoint"]) / "state.pt")["epoch"] == 2
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
    found = furthest(tmp_path, now.experiment, {})
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


def test_a_run_goes_on_where_its_images_have_moved_to_and_begins_anew_on_others(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "mine.yaml").write_text(YAML)
    words = ["pretrain", "mine.yaml", "evaluate.every=9", "training.epochs=2"]
    begun = bgsweep(*words[:3], folder=tmp_path)
    assert begun.returncode == 0, begun.stderr
    (first,) = tmp_path.glob("bgsweep_runs/pretrain/*/state.pt")  # whose experiment has the old paths
    shutil.copytree(tmp_path / "photos", tmp_path / "others")
    (tmp_path / "photos").rename(tmp_path / "moved")
    shutil.move(tmp_path / "masks", tmp_path / "archive")
    moved = bgsweep(*words, "data.images=moved", "data.masks=archive", folder=tmp_path)
    assert moved.returncode == 0, moved.stderr
    assert "goes on after 1 epoch" in moved.stderr and "data.images: photos before, moved now" in moved.stderr
    assert "epoch 2/2" in moved.stderr and "epoch 1/2" not in moved.stderr

    places = ["data.images=moved", "data.masks=archive"]
    evaluated = bgsweep("evaluate", first, "mine.yaml", *places, "evaluate.linear.epochs=1", folder=tmp_path)
    assert evaluated.returncode == 0 and "linear" in evaluated.stdout, evaluated.stderr

    image = next((tmp_path / "others").glob("train/*/*.jpg"))
    assert cv2.imwrite(str(image), 255 - cv2.imread(str(image)))
    others = bgsweep(*words, "data.images=others", "data.masks=archive", folder=tmp_path)
    assert "begins anew: the run in" in others.stderr and "has other images or masks in train" in others.stderr
    assert "epoch 1/2" in others.stderr

    image = next((tmp_path / "moved").glob("validation/*/*.jpg"))
    assert cv2.imwrite(str(image), 255 - cv2.imread(str(image)))
    changed = bgsweep(*words, "data.images=moved", "data.masks=archive", folder=tmp_path)
    assert "validation: the images or masks have changed since this run began" in changed.stderr


def test_only_checkpoints_that_fit_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(load(TINY))
    for seed in range(20):
        other = run.experiment.with_values({"seed": seed})
        record_run(tmp_path / other.digest, other, {"train": "abc"})
        (tmp_path / other.digest / "state.pt").write_bytes(b"")
    run.save(tmp_path / run.experiment.digest)
    opened: list[Path] = []

    def look(path: Path, **options: Any) -> Any:
        opened.append(path)
        return load_safely(path, **options)

    monkeypatch.setattr(resume, "load_safely", look)
    cached = load(TINY, ["data.cache=false"]).experiment
    found = furthest(tmp_path, cached, {"train": "abc"})
    assert found is not None and found.recorded and opened == [found.folder / "state.pt"]
    # Without a record of its images a run goes on only where they have not moved.
    (found.folder / "run.json").unlink()
    plain = furthest(tmp_path, cached, {"train": "abc"})
    assert plain is not None and plain.fits and not plain.recorded
    state = load_checkpoint(found.folder / "state.pt")
    state["experiment"]["data"]["pack"] = "elsewhere"
    before = Experiment.model_validate(state["experiment"])
    save_checkpoint(found.folder / "state.pt", {**state, "digest": before.digest})
    unknown = furthest(tmp_path, cached, {"train": "abc"})
    assert unknown is not None and not unknown.fits


def test_a_refusal_names_what_differs(tmp_path: Path) -> None:
    Run(load(TINY)).save(tmp_path)
    with pytest.raises(UserError, match=r"optimizer.lr: 0.03 before, 0.5 now; name this experiment's own"):
        Run(load(TINY, ["optimizer.lr=0.5", "data.cache=false"])).restore(tmp_path)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "state.pt").write_bytes(b"nothing")
    assert furthest(tmp_path, load(TINY).experiment, {}) is None
