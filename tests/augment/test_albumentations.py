"""Pipelines of Albumentations' transforms in place of our colours, and views without Albumentations."""

import random
import subprocess
import sys
from pathlib import Path

import albumentations as A
import numpy as np
import pytest

import bgsweep.augment.training_transforms  # noqa: F401  registers them with Albumentations
from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config import Background, Views
from bgsweep.config.albumentations_steps import build, usable
from bgsweep.data.sample import Sample
from bgsweep.errors import UserError

ROOT = Path(__file__).parents[2]
NEED_MORE = {"FDA", "HistogramMatching", "PixelDistributionAdaptation", "TextImage"}
CROPPED = {"size": 32, "flip": 0.0, "jitter_p": 0.0, "gray": 0.0, "blur": 0.0}


def views(*steps: object, **settings: object) -> Views:
    return Views.model_validate({"size": 32, "flip": 0.0, "albumentations": list(steps), **settings})


def made(settings: Views, sample: Sample, view: int = 0, key: int = 1) -> np.ndarray:
    return ViewPipeline(settings, Background()).make(sample, lambda: sample, key, view).image


@pytest.mark.parametrize("name", sorted({*usable(A)} - NEED_MORE))
@pytest.mark.filterwarnings("ignore:The image is already an RGB")
def test_every_transform_draws_from_the_key_alone(samples: list[Sample], name: str) -> None:
    arguments = {"transforms": ["GaussNoise", "Equalize"]} if issubclass(getattr(A, name), A.BaseCompose) else {}
    pipeline = ViewPipeline(views({name: {**arguments, "p": 1.0}}), Background())
    found = []
    for seed in range(2):  # of generators that no transform may use
        np.random.seed(seed), random.seed(seed)
        found.append(pipeline.make(samples[0], lambda: samples[0], 7, 0).image)
        pipeline.make(samples[1], lambda: samples[1], 8, 1)
    assert np.array_equal(*found)


def test_the_transforms_follow_crop_and_flip_in_place_of_ours(samples: list[Sample]) -> None:
    plain = made(Views.model_validate(CROPPED), samples[0])
    assert np.array_equal(made(views(), samples[0]), plain)
    assert np.array_equal(made(views({"InvertImg": {"p": 1}}, {"InvertImg": {"p": 1.0}}), samples[0]), plain)
    assert np.array_equal(made(views({"InvertImg": {"p": 1}}), samples[0]), 255 - plain)


def test_each_kind_of_view_may_have_its_own(samples: list[Sample]) -> None:
    for lists, inverted in (
        ([["InvertImg"], []], "1000"),
        ([[], ["InvertImg"]], "0111"),
        ([[], ["InvertImg"], []], "0100"),
    ):
        steps = [[{name: {"p": 1.0}} for name in names] for names in lists]
        settings = {"small_crops": 2, "small_size": 32}
        own, plain = views(*steps, **settings), Views.model_validate(CROPPED | settings)
        for view, expected in enumerate(inverted):
            before = made(plain, samples[0], view)
            assert np.array_equal(made(own, samples[0], view), 255 - before if expected == "1" else before)


def test_a_swap_s_negative_has_colours_of_its_own(samples: list[Sample]) -> None:
    pipeline = ViewPipeline(views({"GaussNoise": {"p": 1.0}}), Background(swap=1.0))
    first, second, again = (
        pipeline.make_swap(samples[0], lambda: samples[1], samples[2], 5, (6, seed)).image for seed in (7, 8, 7)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, second)


def test_steps_may_be_what_to_dict_writes(samples: list[Sample]) -> None:
    transforms = A.Compose([A.ColorJitter(p=1.0), A.OneOf([A.Posterize(), A.Blur()], p=0.9)]).to_dict()["transform"]
    copied = views(*transforms["transforms"])
    short = views({"ColorJitter": {"p": 1.0}}, {"OneOf": {"transforms": ["Posterize", "Blur"], "p": 0.9}})
    assert np.array_equal(made(copied, samples[0]), made(short, samples[0]))
    again = Views.model_validate(copied.model_dump(mode="json"))
    assert again == copied


def test_a_transform_that_changes_the_size_is_named(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(A.InvertImg, "apply", lambda self, img, **params: img[:-1])
    with pytest.raises(UserError, match=r"views.albumentations: InvertImg made uint8 \(31, 32, 3\) of a view of uint8"):
        made(views({"InvertImg": {"p": 1.0}}), samples[0])


def test_views_are_made_without_albumentations() -> None:
    """In a process in which it cannot be imported: views, their policy, and the error where a file asks for it."""
    script = """
import sys
sys.modules["albumentations"] = None
import numpy as np
import bgsweep as bg
from bgsweep.augment.color_batched import render
from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.data import open_splits
from bgsweep.data.loader import Batches
import bgsweep.training.trainer, bgsweep.masks.deepusps.augment
config = bg.load_config("tests/tiny.yaml", ["background.remove=0.5", "background.random=0.5", "data.loader_workers=0"])
experiment = config.experiment
pipeline = ViewPipeline(experiment.views, experiment.background)
train = open_splits(experiment.data).train
batch = next(iter(Batches(train, pipeline, 16, seed=0, rank=0, world_size=1, workers=0).epoch(0)))
transforms = pipeline.policy()["views"][0]["transform"]["transforms"]
print(len(batch.views), [each["__class_fullname__"] for each in transforms])
try:
    bg.load_config("tests/tiny.yaml", ["views.albumentations=[ToGray]"])
except bg.UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    first, second = done.stdout.splitlines() or [done.stderr, ""]
    assert first.startswith("2 ['bgsweep.augment.training_transforms.BackgroundResizedCrop', 'HorizontalFlip', ")
    assert second == (
        "tests/tiny.yaml: experiment.views.albumentations: Albumentations is not installed; pip install "
        "albumentations, or use jitter, gray, blur and solarize"
    )


def test_the_names_of_earlier_policies_are_known() -> None:
    for name in ("training_crop.BackgroundResizedCrop", "color.Photometric", "background.RandomBackground"):
        arguments = {"size": (8, 8)} if name.startswith("training") else {}
        rebuilt = A.from_dict({"transform": {"__class_fullname__": f"bgsweep.augment.{name}", "p": 1.0, **arguments}})
        assert type(rebuilt).__name__ == name.partition(".")[2]


def test_build_names_the_mistake() -> None:
    with pytest.raises(ValueError, match=r"OneOf.Blur.blur_limt: unknown argument; did you mean `blur_limit`\?"):
        build([{"OneOf": {"transforms": [{"Blur": {"blur_limt": 3}}]}}])
