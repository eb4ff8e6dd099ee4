"""A learnt policy as a file, and what stock Albumentations makes of it."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config import Experiment, load
from bgsweep.data.sample import Sample
from bgsweep.sweep.events import Ended, Started
from bgsweep.sweep.journal import Journal
from bgsweep.sweep.policy import described
from bgsweep.sweep.trial import dump
from bgsweep.sweep.trial_record import TrialRecord
from tests.command import bgsweep

ROOT = Path(__file__).parents[2]
QUIET = {"jitter_p": 0.0, "gray": 0.0, "blur": 0.0, "flip": 0.0}


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("policy_example", ROOT / "examples" / "policy.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sample() -> Sample:
    """A square image whose foreground is an octagon in its middle."""
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 3)
    mask = np.zeros((64, 64), np.uint8)
    cv2.circle(mask, (30, 34), 20, 255, cv2.FILLED)
    return Sample("a", image, 0, lambda: mask)


def both(
    example: ModuleType, sample: Sample, views: dict[str, Any], background: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """A view of the whole image, by bgsweep and by the example from the policy's JSON alone."""
    whole = {"size": 64, "scale": (1.0, 1.0), "ratio": (1.0, 1.0), **QUIET, **views}
    experiment = Experiment.model_validate({"views": whole, "background": background})
    donor = Sample("b", sample.image[::-1].copy(), 0, lambda: np.zeros((64, 64), np.uint8))
    ours = ViewPipeline(experiment.views, experiment.background).make(sample, lambda: donor, 1, 0).image
    compose = example.pipeline(json.loads(json.dumps(described(experiment))), 0, seed=1)
    return ours, compose(image=sample.image, mask=sample.mask, donor=donor.image)["image"]


@pytest.mark.parametrize(
    ("views", "background"),
    [
        ({}, {}),
        ({}, {"remove": 1.0, "fill": "black"}),
        ({}, {"remove": 1.0, "fill": "black", "min_area": 0.6}),
        ({"flip": 1.0}, {"random": 1.0, "donor": "plain"}),
        ({"solarize": 1.0}, {}),
        ({"albumentations": [{"Posterize": {"num_bits": 2, "p": 1.0}}, {"InvertImg": {"p": 1.0}}]}, {}),
    ],
    ids=["crop", "BG_RM", "out of bounds", "BG_Random, flipped", "solarise", "albumentations"],
)
def test_what_both_libraries_do_alike_is_the_same_bytes(
    example: ModuleType, sample: Sample, views: dict[str, Any], background: dict[str, Any]
) -> None:
    ours, theirs = both(example, sample, views, background)
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("views", [{"gray": 1.0}, {"blur": 1.0, "blur_sigma": (1.0, 1.0)}], ids=["grey", "blur"])
def test_grey_and_blur_agree_within_rounding(example: ModuleType, sample: Sample, views: dict[str, Any]) -> None:
    ours, theirs = both(example, sample, views, {})
    assert np.abs(ours.astype(int) - theirs).max() <= 2 and not np.array_equal(ours, sample.image)


def test_each_view_has_its_own_numbers_and_schedules_stay() -> None:
    overrides = ["background.remove=[0.1, 0.3]", "background.random={from: 0.4, to: 0, course: cosine}"]
    found = described(load(ROOT / "search_spaces" / "swav_small.yaml", overrides).experiment)
    large = [view for view in found["views"] if not view["small"]]
    assert [(view["remove"], view["random"]) for view in large] == [(0.1, 0.4), (0.3, 0.4)]
    assert all((view["remove"], view["random"]) == (0.0, 0.0) for view in found["views"] if view["small"])
    assert found["background"]["random"] == {"from": 0.4, "to": 0.0, "course": "cosine"}


def test_dino_s_crops_are_those_of_its_paper(example: ModuleType) -> None:
    """Caron et al. 2021 and main_dino.py: blur and solarization of each kind of crop by themselves."""
    policy = described(load(ROOT / "search_spaces" / "dino_imagenet.yaml", searched=False).experiment)
    found = policy["views"]
    first, second, small = (224, (0.4, 1.0), 1.0, 0.0), (224, (0.4, 1.0), 0.1, 0.2), (96, (0.05, 0.4), 0.5, 0.0)
    own = [(each["size"][0], each["scale"], each["blur"], each["solarize"]) for each in found]
    assert own == [first, second, *[small] * 8]
    shared = {"jitter": (0.4, 0.4, 0.2, 0.1), "jitter_p": 0.8, "gray": 0.2, "blur_sigma": (0.1, 2.0), "flip": 0.5}
    assert all(each.items() >= (shared | {"interpolation": "bicubic"}).items() for each in found)
    assert len(example.pipeline(policy, 2).transforms) == 7


def test_views_come_at_the_policy_s_share(example: ModuleType, sample: Sample) -> None:
    whole = {"size": 64, "scale": (1.0, 1.0), "ratio": (1.0, 1.0), **QUIET}
    experiment = Experiment.model_validate({"views": whole, "background": {"remove": 0.3, "fill": "black"}})
    compose = example.pipeline(described(experiment), 0, seed=5)
    made = [compose(image=sample.image, mask=sample.mask, donor=sample.image)["image"] for _ in range(400)]
    assert np.mean([not image[0].any() for image in made]) == pytest.approx(0.3, abs=0.07)


def test_a_sweep_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = bgsweep("policy", "none-such", "--store", tmp_path, folder=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1


def test_the_policy_of_the_best_trial_that_ran_to_its_end_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "sweeps" / "tiny-1"
    folder.mkdir(parents=True)
    file = load(ROOT / "tests" / "tiny.yaml", ["space.background.remove={uniform: [0.0, 0.8]}"])
    manifest = {"file": dump(file), "digest": "0", "parent": "run", "began": 0.0}
    manifest["owner"] = {"bgsweep.host": "here", "bgsweep.pid": "1", "bgsweep.born": "0"}
    (folder / "sweep.json").write_text(json.dumps(manifest))
    journal = Journal(folder)
    for name, remove, status, value in (
        ("t00", 0.0, "completed", 0.2),
        ("t01", 0.25, "completed", 0.5),
        ("t02", 0.75, "stopped", 0.9),
    ):
        record = TrialRecord(name, {"background.remove": remove}, None, name, "run", status, 3, {"knn_top1": value})
        journal.write(Started(trial=record))
        journal.write(Ended(trial=record))
    for options, trial, remove in (([], "t01", 0.25), (["--trial", "t02"], "t02", 0.75)):
        done = bgsweep("policy", "tiny-1", *options, "--store", tmp_path, "--out", "made/policy.json", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        found = json.loads((tmp_path / "made" / "policy.json").read_text())
        assert found["trial"] == trial and [view["remove"] for view in found["views"]] == [remove, remove]
    wrong = bgsweep("policy", "tiny-1", "--trial", "t07", "--store", tmp_path, folder=tmp_path)
    assert wrong.returncode == 2 and "no trial t07; it has t00, t01, t02" in wrong.stderr
