import random
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest

from bgsweep.augment import background
from bgsweep.augment.crop_window import draw_window
from bgsweep.augment.training_transforms import BackgroundResizedCrop
from bgsweep.data.sample import Sample
from bgsweep.images import compositing
from bgsweep.images.compositing import Image, Rect, inpaint_background
from bgsweep.images.resizing import resize_antialiased

WAYS = ["linear", "area", "bilinear", "bicubic"]


def resized(image: Image, width: int, height: int, way: str) -> Image:
    if way in ("bilinear", "bicubic"):
        return resize_antialiased(image, (height, width), way)
    return cv2.resize(image, (width, height), interpolation={"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}[way])


def crop_of(pipeline: A.Compose, sample: Sample, donor: Sample) -> tuple[Image, dict[str, Any]]:
    image = pipeline(image=sample.image, mask=sample.mask, donor={"image": donor.image, "mask": donor.mask})["image"]
    return image, pipeline.transforms[0].params


@pytest.mark.parametrize("interpolation", WAYS)
@pytest.mark.parametrize("fill", ["random_gray", "black"])
def test_removal_equals_augmenting_the_whole_image(large: list[Sample], fill: str, interpolation: str) -> None:
    crop = BackgroundResizedCrop((96, 64), remove=1, fill=fill, interpolation=interpolation, min_area=0, max_area=1)
    pipeline = A.Compose([crop], seed=0)
    for sample in large:
        result, params = crop_of(pipeline, sample, sample)
        level = int(params["fill_draw"] * 256) if fill == "random_gray" else 0
        foreground = (sample.mask > 127)[..., None]
        whole = np.where(foreground, sample.image, np.uint8(level))
        window = Rect(*params["window"]).of(whole)
        assert np.array_equal(result, resized(window, 64, 96, interpolation))


@pytest.mark.parametrize("interpolation", WAYS)
def test_tiling_equals_augmenting_the_whole_image(large: list[Sample], interpolation: str) -> None:
    crop = BackgroundResizedCrop((64, 64), random=1, interpolation=interpolation, min_area=0, max_area=1)
    pipeline = A.Compose([crop], seed=0)
    for sample, donor in zip(large, [*large[1:], large[0]], strict=True):
        result, params = crop_of(pipeline, sample, donor)
        window = Rect(*params["window"])
        rect = compositing.largest_background_rectangle(donor.mask)
        assert rect is not None
        _, _, down, right = params["donor_draw"]
        # The plane's phase is that of the window: roll it so that this holds for the whole image.
        patch = np.roll(rect.of(donor.image), (window.top, window.left), (0, 1))
        patch = np.roll(patch, (-int(down * rect.height), -int(right * rect.width)), (0, 1))
        repeats = (-(-375 // rect.height), -(-500 // rect.width), 1)
        plane = np.tile(patch, repeats)[:375, :500]
        whole = np.where((sample.mask > 127)[..., None], sample.image, plane)
        assert np.array_equal(result, resized(window.of(whole), 64, 64, interpolation))


@pytest.mark.parametrize(
    "mode",
    [
        {"remove": 1, "fill": "mean"},
        {"remove": 1, "fill": "noise"},
        {"random": 1, "donor": "plain"},
        {"random": 1, "donor": "inpainted"},
    ],
    ids=str,
)
def test_window_modes_equal_augmenting_the_crop(large: list[Sample], mode: dict[str, Any]) -> None:
    crop = BackgroundResizedCrop((64, 64), min_area=0, max_area=1, **mode)
    pipeline = A.Compose([crop], seed=0)
    for sample, donor in zip(large, [*large[1:], large[0]], strict=True):
        result, params = crop_of(pipeline, sample, donor)
        window = Rect(*params["window"])
        view, mask = window.of(sample.image), window.of(sample.mask)
        if "remove" in mode:
            behind = background.removed_background(view, mode["fill"], params["fill_draw"])
        else:
            painted = mode["donor"] == "inpainted"
            donors: background.Donor = {
                "image": inpaint_background(donor.image, donor.mask) if painted else donor.image
            }
            behind = background.random_background(donors, "plain", *view.shape[:2], (0.2, 1), params["donor_draw"])
        expected = np.where((mask > 127)[..., None], view, behind)
        assert np.array_equal(result, cv2.resize(expected, (64, 64)))


def test_a_mask_target_is_cropped_with_the_image(samples: list[Sample]) -> None:
    pipeline = A.Compose([BackgroundResizedCrop((50, 40), remove=1, fill="black", min_area=0, max_area=1)], seed=0)
    for sample in samples:
        white = np.full_like(sample.image, 255)
        result = pipeline(image=white, mask=sample.mask)
        disagreement = (result["image"][..., 0] > 127) != (result["mask"] > 127)
        assert result["mask"].shape == (50, 40)
        assert disagreement.mean() < 0.03


def test_probabilities_do_not_move_the_crops(samples: list[Sample]) -> None:
    def records(**background: float) -> list[tuple[Any, ...]]:
        pipeline = A.Compose([BackgroundResizedCrop((8, 8), **background), A.HorizontalFlip()], seed=5)
        found = []
        for sample in samples * 5:
            _, params = crop_of(pipeline, sample, samples[0])
            found.append((params["window"], params["fill_draw"], params["donor_draw"], params["applied"]))
        return found

    none, some, more = records(), records(remove=0.2, random=0.2), records(remove=0.6, random=0.2)
    assert [record[:3] for record in none] == [record[:3] for record in some] == [record[:3] for record in more]
    # Common random numbers: what was removed at a low probability is removed at a higher one.
    removed = [{index for index, record in enumerate(found) if record[3] == "removed"} for found in (some, more)]
    assert removed[0] and removed[0] < removed[1]


def test_operations_are_independent_and_removal_wins(samples: list[Sample]) -> None:
    crop = BackgroundResizedCrop((8, 8), remove=0.3, random=0.5, min_area=0, max_area=1)
    pipeline = A.Compose([crop], seed=0)
    applied = [crop_of(pipeline, samples[index % 10], samples[0])[1]["applied"] for index in range(1500)]
    shares = {outcome: applied.count(outcome) / len(applied) for outcome in ("removed", "replaced", "none")}
    assert shares == pytest.approx({"removed": 0.3, "replaced": 0.35, "none": 0.35}, abs=0.04)


def test_area_bounds_are_those_of_the_crop(samples: list[Sample]) -> None:
    crop = BackgroundResizedCrop((8, 8), scale=(0.05, 0.2), remove=1, min_area=0.3, max_area=0.7)
    pipeline = A.Compose([crop], seed=0)
    outcomes = set()
    for sample in samples * 10:
        image, params = crop_of(pipeline, sample, sample)
        window = Rect(*params["window"])
        area = (window.of(sample.mask) > 127).mean()
        expected = "kept_small" if area < 0.3 else "kept_large" if area > 0.7 else "removed"
        assert params["applied"] == expected
        untouched = np.array_equal(image, cv2.resize(window.of(sample.image), (8, 8)))
        assert untouched == (expected != "removed")
        outcomes.add(expected)
    assert outcomes == {"kept_small", "kept_large", "removed"}


def test_masks_and_donors_are_asked_for_only_when_drawn(samples: list[Sample]) -> None:
    calls = {"mask": 0, "donor": 0}

    def mask() -> np.ndarray:
        calls["mask"] += 1
        return samples[0].mask

    def donor() -> Any:
        calls["donor"] += 1
        return {"image": samples[1].image, "mask": samples[1].mask}

    for remove, replace, expected in ((0, 0, (False, 0)), (1, 0, (True, 0)), (0, 1, (True, 1)), (1, 1, (True, 0))):
        calls.update(mask=0, donor=0)
        crop = BackgroundResizedCrop((8, 8), remove=remove, random=replace, min_area=0, max_area=1, mask_key="fg")
        A.Compose([crop])(image=samples[0].image, fg=mask, donor=donor)
        assert (calls["mask"] > 0, calls["donor"]) == expected


def test_serialisation_keeps_every_argument() -> None:
    placing = (1.5, 3, "soft", 0.25)
    values = (
        *((20, 30), (0.3, 0.8), (0.9, 1.1), 0.4, 0.7, "noise", "plain", 0.02, 0.9),
        *(*placing, "area", "fg", "others", 0.5),
    )
    crop = BackgroundResizedCrop(*values)
    described = A.to_dict(crop)["transform"]
    assert A.from_dict(A.to_dict(crop)).to_dict()["transform"] == described
    assert sorted(map(str, described.values())) == sorted(map(str, (*values, crop.get_class_fullname())))


@pytest.mark.filterwarnings("ignore:.*could work incorrectly in ReplayMode")
def test_replay_is_exact(samples: list[Sample]) -> None:
    pipeline = A.ReplayCompose([BackgroundResizedCrop((24, 24), remove=0.5, random=0.5), A.HorizontalFlip()])
    for sample in samples:
        donor = {"image": samples[0].image, "mask": samples[0].mask}
        data = {"image": sample.image, "mask": sample.mask, "donor": donor}
        result = pipeline(**data)
        assert np.array_equal(A.ReplayCompose.replay(result["replay"], **data)["image"], result["image"])


def test_windows_follow_random_resized_crop() -> None:
    generator = random.Random(0)
    windows = [draw_window(300, 400, (0.2, 1.0), (3 / 4, 4 / 3), generator) for _ in range(4000)]
    assert all(w.top >= 0 and w.left >= 0 and w.bottom <= 300 and w.right <= 400 for w in windows)
    assert all(0.73 < w.width / w.height < 1.36 for w in windows)
    mine = np.array([(w.height * w.width / 120000, w.width / w.height, w.top, w.left) for w in windows])
    reference = A.RandomResizedCrop((8, 8), scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3))
    stock = A.Compose([reference], seed=0)
    image, theirs = np.zeros((300, 400, 3), np.uint8), []
    for _ in range(4000):
        stock(image=image)
        left, top, right, bottom = reference.params["crop_coords"]
        theirs.append(((bottom - top) * (right - left) / 120000, (right - left) / (bottom - top), top, left))
    spread = np.std(theirs, axis=0)
    for level in (10, 50, 90):
        apart = np.abs(np.percentile(mine, level, axis=0) - np.percentile(theirs, level, axis=0))
        assert (apart < 0.1 * spread).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (500, 1), (2, 3), (100, 1000), (1000, 100)])
def test_windows_of_extreme_images(height: int, width: int) -> None:
    generator = random.Random(0)
    for _ in range(200):
        window = draw_window(height, width, (0.2, 1.0), (3 / 4, 4 / 3), generator)
        assert 0 <= window.top < window.bottom <= height
        assert 0 <= window.left < window.right <= width
