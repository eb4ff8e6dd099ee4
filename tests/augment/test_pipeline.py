import json
import pickle
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import torch

import bgsweep.augment.training_transforms  # noqa: F401  registers them with Albumentations
from bgsweep.augment.background import random_background
from bgsweep.augment.color_batched import render
from bgsweep.augment.crop_window import draw_window
from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config import Background, Views
from bgsweep.data.sample import Sample
from bgsweep.seeding import view_key

BYOL = Views(size=48, jitter=(0.4, 0.4, 0.2, 0.1), gray=0.2, blur=(1.0, 0.1), solarize=(0.0, 0.2))
SWAV = Views(size=40, jitter=(0.8, 0.8, 0.8, 0.2), small_crops=3, small_size=24)
BOTH = Background(remove=0.4, random=0.6)
OWN = Views(
    size=48,
    albumentations=[
        [{"ColorJitter": {"brightness": 0.4, "p": 0.8}}, {"GaussNoise": {"p": 0.5}}, "ToGray"],
        [{"OneOf": {"transforms": [{"GaussianBlur": {"sigma_limit": [0.5, 2.0]}}, "ISONoise"], "p": 0.9}}],
    ],
)
PLAIN = Views(size=64, jitter_p=0, gray=0, blur=0)


def of(sample: Sample) -> Callable[[], Sample]:
    return lambda: sample


def names(policy: dict[str, Any]) -> list[list[str]]:
    transforms = [view["transform"]["transforms"] for view in policy["views"]]
    return [[transform["__class_fullname__"].split(".")[-1] for transform in view] for view in transforms]


@pytest.mark.parametrize("views", [BYOL, OWN], ids=["ours", "albumentations"])
def test_a_view_depends_on_its_key_alone(samples: list[Sample], views: Views) -> None:
    jobs = [(sample, view, view_key(0, 1, sample.id, view)) for sample in samples for view in range(2)]

    def made(order: list[int]) -> dict[int, bytes]:
        pipeline = ViewPipeline(views, BOTH)
        found = {}
        for index in order:
            sample, view, key = jobs[index]
            found[index] = pipeline.make(sample, of(samples[3]), key, view).image.tobytes()
        return found

    order = list(range(len(jobs)))
    first = made(order)
    assert made(order[::-1]) == first
    assert made(random.Random(0).sample(order, len(order))) == first
    assert len(set(first.values())) == len(jobs)


@pytest.mark.parametrize("views", [BYOL, OWN], ids=["ours", "albumentations"])
def test_a_pickled_pipeline_makes_the_same_views(samples: list[Sample], views: Views) -> None:
    pipeline = ViewPipeline(views, Background(remove=0.4, random=0.6, fill="noise"))
    copied = pickle.loads(pickle.dumps(pipeline))
    for epoch, sample in enumerate(samples * 3):
        views = [each.make(sample, of(samples[0]), epoch, 1) for each in (pipeline, copied)]
        assert views[0].applied == views[1].applied
        assert np.array_equal(views[0].image, views[1].image)


def test_read_only_images_are_left_alone(samples: list[Sample]) -> None:
    frozen = []
    for sample in samples:
        image = sample.image.copy()
        image.flags.writeable = False
        frozen.append(replace(sample, image=image))
    for background in (BOTH, Background(random=1.0, donor="plain"), Background(remove=1.0, fill="mean")):
        pipeline = ViewPipeline(BYOL, background)
        for epoch, (sample, original) in enumerate(zip(frozen, samples, strict=True)):
            view = pipeline.make(sample, of(frozen[0]), epoch, 1).image
            assert np.array_equal(view, pipeline.make(original, of(samples[0]), epoch, 1).image)
            pipeline.make_swap(sample, of(frozen[0]), frozen[1], epoch, (epoch + 1, epoch + 2))
            assert np.array_equal(sample.image, original.image)


def test_another_process_makes_the_same_bytes(shared_data: Path) -> None:
    script = """
import hashlib, sys, cv2
from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config import Background, Views
from bgsweep.data.sample import Sample
from bgsweep.seeding import view_key
image, mask = cv2.imread(sys.argv[1]), cv2.imread(sys.argv[2], 0)
sample = Sample("a", image, 0, lambda: mask)
pipeline = ViewPipeline(Views(size=48), Background(remove=0.5, random=0.5, fill="noise"))
digest = hashlib.sha256()
for epoch in range(10):
    digest.update(pipeline.make(sample, lambda: sample, view_key(5, epoch, "a", 0), 0).image.tobytes())
print(digest.hexdigest())
"""
    image = next((shared_data / "clothing10" / "images" / "train" / "hat").iterdir())
    mask = shared_data / "clothing10" / "masks" / "train" / "hat" / f"{image.stem}.png"
    command = [sys.executable, "-c", script, str(image), str(mask)]
    environments = [{"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)} for seed in ("1", "2")]
    runs = [subprocess.run(command, env=env, capture_output=True, text=True, check=True) for env in environments]
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.strip()) == 64


def test_views_are_compact_uint8_and_own_their_memory(samples: list[Sample]) -> None:
    for views in (SWAV, PLAIN):
        pipeline = ViewPipeline(views, BOTH)
        for view in range(pipeline.n_views):
            for sample in samples:
                image = pipeline.make(sample, of(samples[0]), view_key(0, 0, sample.id, view), view).image
                size = views.size if view < 2 else views.small_size
                assert image.shape == (size, size, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
                assert not np.shares_memory(image, sample.image)


def test_recipes() -> None:
    moco = ViewPipeline(Views(), Background()).policy()
    assert names(moco) == [["BackgroundResizedCrop", "HorizontalFlip", "Photometric"]] * 2
    byol = ViewPipeline(BYOL, Background()).policy()
    assert names(byol) == names(moco)
    assert names(ViewPipeline(SWAV, Background()).policy()) == names(moco)[:1] * 5
    crop, flip, colors = moco["views"][0]["transform"]["transforms"]
    assert (crop["size"], crop["scale"], crop["ratio"]) == ((224, 224), (0.2, 1.0), (3 / 4, 4 / 3))
    assert (crop["interpolation"], colors["color"]) == ("linear", "exact")
    assert (colors["jitter"], colors["jitter_p"], flip["p"]) == ((0.4, 0.4, 0.4, 0.1), 0.8, 0.5)
    assert [colors[name] for name in ("gray", "blur", "blur_sigma", "solarize")] == [0.2, 0.5, (0.1, 2.0), 0.0]
    views = [view["transform"]["transforms"][2] for view in byol["views"]]
    assert [(view["blur"], view["solarize"]) for view in views] == [(1.0, 0.0), (0.1, 0.2)]
    dino = SWAV.model_copy(update={"blur": (1.0, 0.1, 0.5), "solarize": (0.0, 0.2, 0.3)})
    views = [view["transform"]["transforms"][2] for view in ViewPipeline(dino, Background()).policy()["views"]]
    assert [(view["blur"], view["solarize"]) for view in views] == [(1.0, 0.0), (0.1, 0.2), *[(0.5, 0.3)] * 3]
    small = ViewPipeline(SWAV, Background()).policy()["views"][4]["transform"]["transforms"][0]
    assert (small["size"], small["scale"]) == ((24, 24), (0.05, 0.14))


@pytest.mark.parametrize("interpolation", ["area", "bicubic"])
def test_choices_of_the_configuration_reach_the_transforms(samples: list[Sample], interpolation: str) -> None:
    chosen = ViewPipeline(Views(interpolation=interpolation, color="fast"), Background()).policy()["views"][1]
    crop, _, colors = chosen["transform"]["transforms"]
    assert (crop["interpolation"], colors["color"]) == (interpolation, "fast")


@pytest.mark.parametrize("color", ["exact", "fast"])
def test_views_left_to_the_device_are_those_of_the_cpu(samples: list[Sample], color: str) -> None:
    here = ViewPipeline(BYOL.model_copy(update={"color": color}), BOTH)
    there = ViewPipeline(BYOL.model_copy(update={"color": color, "photometric": "device"}), BOTH)
    for view in range(2):
        made = [there.make(sample, of(samples[0]), key, view) for key, sample in enumerate(samples * 4)]
        rows = torch.tensor([result.photometry.row() for result in made])
        finished = render(torch.from_numpy(np.stack([result.image for result in made])), rows, color)
        for key, sample in enumerate(samples * 4):
            expected = here.make(sample, of(samples[0]), key, view)
            assert expected.photometry is None and expected.applied == made[key].applied
            assert np.abs(finished[key].numpy().astype(int) - expected.image).mean() < 1.0


def test_policy_is_plain_data_that_rebuilds_the_pipelines() -> None:
    policy = ViewPipeline(SWAV, BOTH).policy()
    for view in json.loads(json.dumps(policy))["views"]:
        assert json.loads(json.dumps(A.from_dict(view).to_dict())) == view


def test_views_are_what_albumentations_makes_of_the_policy(samples: list[Sample]) -> None:
    """The pipeline calls its transforms' own methods; the policy, run by Albumentations, gives the same bytes."""
    for views in (BYOL, SWAV.model_copy(update={"interpolation": "bilinear"}), OWN):
        pipeline = ViewPipeline(views, BOTH)
        for view, policy in enumerate(pipeline.policy()["views"]):
            compose = A.from_dict(policy)
            for key, sample in enumerate(samples):
                draws, numbers = random.Random(key), np.random.Generator(np.random.PCG64(0))
                compose.set_random_state(numbers, draws)
                donor = {"image": samples[0].image, "mask": samples[0].mask}
                data = {"image": sample.image, "foreground": sample.mask, "donor": donor}
                for index, transform in enumerate(compose.transforms):  # `Compose` itself draws once before them
                    if index == 2 and views is OWN:
                        numbers.bit_generator.state = np.random.PCG64(draws.getrandbits(64)).state
                    data = transform(**data)
                assert np.array_equal(pipeline.make(sample, of(samples[0]), key, view).image, data["image"])


def test_small_crops_are_augmented_only_where_asked_for(samples: list[Sample]) -> None:
    for apply_to, expected in (("global", {"none"}), ("all", {"removed", "kept_small", "kept_large"})):
        pipeline = ViewPipeline(SWAV, Background(remove=1.0, apply_to=apply_to))
        made = [pipeline.make(s, of(s), view_key(0, epoch, s.id, 3), 3) for s in samples for epoch in range(9)]
        assert {view.applied for view in made} == expected


def test_pairs_are_first_view_and_the_others(samples: list[Sample]) -> None:
    background = Background(remove=(0.0, 1.0), random=(1.0, 0.0), apply_to="all", min_area=0, max_area=1)
    pipeline = ViewPipeline(SWAV, background)
    applied = [pipeline.make(samples[0], of(samples[1]), view, view).applied for view in range(5)]
    assert applied == ["replaced", "removed", "removed", "removed", "removed"]


def test_three_values_are_first_view_second_view_and_small_crops(samples: list[Sample]) -> None:
    schedule = {"from": [0.0, 1.0, 0.0], "to": 1.0, "course": "constant"}
    background = Background.model_validate(
        {"remove": schedule, "random": [0.0, 0.0, 1.0], "apply_to": "all", "min_area": 0, "max_area": 1}
    )
    pipeline = ViewPipeline(SWAV, background, epochs=3)
    applied = [pipeline.make(samples[0], of(samples[1]), view, view).applied for view in range(5)]
    assert applied == ["none", "removed", "replaced", "replaced", "replaced"]


def test_shares_of_outcomes(samples: list[Sample]) -> None:
    pipeline = ViewPipeline(
        Views(size=8, jitter_p=0, gray=0, blur=0), Background(remove=0.2, random=0.5, min_area=0.0, max_area=1.0)
    )
    made = [pipeline.make(samples[0], of(samples[1]), view_key(0, epoch, "x", 0), 0).applied for epoch in range(1500)]
    shares = {name: count / len(made) for name, count in Counter(made).items()}
    assert shares == pytest.approx({"removed": 0.2, "replaced": 0.4, "none": 0.4}, abs=0.04)


def test_masks_and_donors_are_not_touched_without_need(samples: list[Sample]) -> None:
    def refuse() -> Any:
        raise AssertionError("asked for without need")

    maskless = replace(samples[0], load_mask=refuse)
    assert ViewPipeline(PLAIN, Background()).make(maskless, refuse, 1, 0).applied == "none"
    removing = ViewPipeline(PLAIN, Background(remove=1.0, random=1.0))
    assert removing.make(samples[0], refuse, 1, 0).applied == "removed"


@pytest.mark.parametrize(
    "background",
    [Background(), Background(remove=1.0, fill="noise"), Background(random=1.0), Background(random=1.0, donor="plain")],
    ids=["own", "removed", "tiled", "plain"],
)
def test_swap_shows_the_view_s_own_background(samples: list[Sample], background: Background) -> None:
    pipeline = ViewPipeline(PLAIN, background.model_copy(update={"swap_negative": "foreground"}))
    shown = 0
    for index, sample in enumerate(samples * 3):
        donor, other, key = samples[(index + 1) % 10], samples[(index + 2) % 10], view_key(0, index, sample.id, 0)
        view = pipeline.make(sample, of(donor), key, 0).image
        swap = pipeline.make_swap(sample, of(donor), other, key, (key + 1, key + 2)).image
        # Painted black and white, the foregrounds show which pixels of the views they reach.
        painted = [paint(sample, sample.mask > 127, level) for level in (0, 255)]
        black, white = (pipeline.make(paintings, of(donor), key, 0).image for paintings in painted)
        own = (black != white).any(-1)
        painted = [paint(other, other.mask >= 0, level) for level in (0, 255)]
        keys = key, (key + 1, key + 2)
        black, white = (pipeline.make_swap(sample, of(donor), paintings, *keys).image for paintings in painted)
        theirs = (black != white).any(-1)
        assert np.array_equal(swap[~own & ~theirs], view[~own & ~theirs])
        shown += bool(theirs.mean() > 0.01)
    assert shown == len(samples) * 3


@pytest.mark.parametrize("background", [{}, {"remove": 1.0}, {"random": 1.0, "donor": "plain"}, {"random": 1.0}])
def test_silhouette_is_the_query_with_its_foreground_filled_from_another_image(
    samples: list[Sample], background: dict[str, Any]
) -> None:
    """m * r + (1 - m) * q, pixel by pixel, written out."""
    pipeline = ViewPipeline(PLAIN, Background(**background, min_area=0, max_area=1))
    for index, sample in enumerate(samples):
        donor, other, key, swap_key = samples[index - 1], samples[index - 2], 1000 + index, 2000 + index
        draws = random.Random(key)
        draws.random(), draws.random()
        window = draw_window(*sample.mask.shape, PLAIN.scale, PLAIN.ratio, draws)
        fill, *chosen = (draws.random() for _ in range(5))
        q, m = window.of(sample.image), window.of(sample.mask)[..., None] > 127
        height, width = q.shape[:2]
        if background.get("remove"):
            q = np.full_like(q, int(fill * 256))
        elif background:
            mode = background.get("donor", "tiled")
            q = random_background({"image": donor.image, "mask": donor.mask}, mode, height, width, PLAIN.scale, chosen)
        ratio = (width / height, width / height)
        crop = draw_window(*other.image.shape[:2], PLAIN.scale, ratio, random.Random(swap_key))
        r = cv2.resize(crop.of(other.image), (width, height))
        expected = cv2.resize(np.where(m, r, q), (64, 64))
        expected = expected[:, ::-1] if draws.random() < 0.5 else expected
        assert np.array_equal(pipeline.make_swap(sample, of(donor), other, key, (swap_key, 0)).image, expected)


def test_a_replaced_key_differs_in_its_background_alone(samples: list[Sample]) -> None:
    """`replace` is BG_Random at probability 1, whatever was drawn: same crop, flip, colours and donor window."""
    views = Views(size=48)
    seldom = ViewPipeline(views, Background(remove=0.5, min_area=0, max_area=1))
    always = ViewPipeline(views, Background(random=1.0, min_area=0, max_area=1))
    for key, sample in enumerate(samples * 2):
        replaced = seldom.make(sample, of(samples[0]), key, 1, replace=True)
        expected = always.make(sample, of(samples[0]), key, 1)
        assert replaced.applied == "replaced" and np.array_equal(replaced.image, expected.image)


def paint(sample: Sample, where: np.ndarray, level: int) -> Sample:
    image = sample.image.copy()
    image[where] = level
    return replace(sample, image=image)


def test_swap_is_addressed(samples: list[Sample]) -> None:
    pipeline = ViewPipeline(Views(size=32), BOTH)
    sample, donor, other = samples[:3]
    first = pipeline.make_swap(sample, of(donor), other, 7, (8, 9)).image
    pipeline.make(sample, of(donor), 99, 1)
    assert np.array_equal(pipeline.make_swap(sample, of(donor), other, 7, (8, 9)).image, first)
    for keys in ((9, 9), (8, 8)):
        assert not np.array_equal(pipeline.make_swap(sample, of(donor), other, 7, keys).image, first)


def test_colors_of_a_swap_are_drawn_apart_from_its_crop(samples: list[Sample]) -> None:
    on_device = ViewPipeline(Views(size=32, photometric="device"), BOTH)
    sample, donor, other = samples[:3]
    made = {keys: on_device.make_swap(sample, of(donor), other, 7, keys) for keys in ((8, 9), (8, 10), (11, 9))}
    assert np.array_equal(made[8, 9].image, made[8, 10].image)
    assert made[8, 9].photometry == made[11, 9].photometry != made[8, 10].photometry
    assert not np.array_equal(made[8, 9].image, made[11, 9].image)
