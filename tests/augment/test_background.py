import random
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest

from bgsweep.augment.background import Placement, draw_placement, mix, move_foreground
from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.augment.training_transforms import BackgroundResizedCrop
from bgsweep.config import Background, Views
from bgsweep.data.sample import Sample
from bgsweep.images.compositing import binarize

PLAIN = Views(size=64, jitter_p=0, gray=0, blur=0, flip=0)


def refuse() -> Sample:
    raise AssertionError("no donor is asked for")


def test_factors_are_log_uniform_and_places_follow_the_bates_distribution() -> None:
    generator = random.Random(0)
    drawn = [draw_placement(2.0, 3, generator) for _ in range(4000)]
    logs = np.log2([each.factor for each in drawn])
    assert logs.min() > -1 and logs.max() < 1 and abs(logs.mean()) < 0.03
    assert logs.std() == pytest.approx(3**-0.5, abs=0.02)
    for values in ([each.down for each in drawn], [each.right for each in drawn]):
        assert np.mean(values) == pytest.approx(0.5, abs=0.01)
        assert np.std(values) == pytest.approx((1 / 36) ** 0.5, abs=0.01)  # variance 1 / (12 n)
    assert draw_placement(1.0, 0, generator) == Placement(1.0)


@pytest.mark.parametrize(("down", "right"), [(0.0, 0.0), (1.0, 1.0), (0.5, 0.25)])
def test_a_foreground_is_moved_by_whole_pixels(samples: list[Sample], down: float, right: float) -> None:
    image, mask = samples[0].image, np.zeros_like(samples[0].mask)
    rows, columns = mask.shape
    mask[10:40, 20:70] = 255
    moved, where = move_foreground(image, mask, Placement(1.0, down, right))
    top, left = round(down * (rows - 30)), round(right * (columns - 50))
    assert np.array_equal(moved[top : top + 30, left : left + 50], image[10:40, 20:70])
    expected = np.zeros_like(mask)
    expected[top : top + 30, left : left + 50] = 255
    assert np.array_equal(where, expected)


def test_a_view_without_a_foreground_stays_as_it_is(samples: list[Sample]) -> None:
    image, mask = samples[0].image, np.zeros_like(samples[0].mask)
    moved, where = move_foreground(image, mask, Placement(1.3, 0.5, 0.5))
    assert np.array_equal(moved, image) and not where.any()


def test_a_foreground_grows_about_its_middle_and_no_further_than_the_view(samples: list[Sample]) -> None:
    image, mask = samples[0].image, np.zeros_like(samples[0].mask)
    mask[30:50, 40:70] = 255
    for factor, expected in ((2.0, (20, 25, 40, 60)), (0.5, (35, 48, 10, 15))):
        _, where = move_foreground(image, mask, Placement(factor))
        x, y, width, height = cv2.boundingRect(binarize(where))
        assert np.abs(np.subtract((y, x, height, width), expected)).max() <= 1
    _, where = move_foreground(image, mask, Placement(50.0, 0.7, 0.2))
    x, y, width, height = cv2.boundingRect(binarize(where))
    assert max(height / mask.shape[0], width / mask.shape[1]) > 0.95


def test_mixing_rounds_to_the_nearest_level() -> None:
    generator = np.random.default_rng(0)
    image, backdrop = generator.integers(0, 256, (2, 9, 7, 3), dtype=np.uint8)
    alpha = generator.integers(0, 256, (9, 7), dtype=np.uint8)
    share = alpha[..., None] / 255.0
    assert np.array_equal(mix(image, alpha, backdrop), np.floor(image * share + backdrop * (1 - share) + 0.5))


@pytest.mark.parametrize(
    "change", [{"blend": "soft"}, {"mask_blur": 2.0}, {"foreground_position": 2, "foreground_scale": 1.5}]
)
def test_a_view_differs_where_it_is_asked_to_and_crop_and_flip_stay(
    samples: list[Sample], change: dict[str, Any]
) -> None:
    views = PLAIN.model_copy(update={"flip": 0.5})
    base: dict[str, Any] = {"remove": 1.0, "fill": "black"}
    hard, other = ViewPipeline(views, Background(**base)), ViewPipeline(views, Background(**base, **change))
    off = ViewPipeline(views, Background(**change))
    changed = 0
    for key, sample in enumerate(samples):
        soft = cv2.GaussianBlur(sample.mask, (0, 0), 3)  # with grey levels, which PNGs of masks may have
        sample = Sample(sample.id, sample.image, 0, lambda soft=soft: soft)
        plain, made, kept, without = (
            each.make(sample, refuse, key, 0) for each in (hard, other, off, ViewPipeline(views, Background()))
        )
        assert made.applied == plain.applied
        changed += not np.array_equal(plain.image, made.image)
        if "foreground_position" not in change and plain.applied == "removed":
            inside = cv2.erode((plain.image.max(-1) > 0).astype(np.uint8), np.ones((15, 15)), borderValue=0) > 0
            assert np.abs(plain.image[inside].astype(int) - made.image[inside]).mean() < 2
        assert np.array_equal(kept.image, without.image)
    assert changed >= 8


def test_a_blurred_mask_mixes_with_the_weights_of_a_gaussian(samples: list[Sample]) -> None:
    """Whole image, no resize: the view is alpha times the image before black, alpha the blurred mask."""
    sample = samples[1]
    side = min(sample.image.shape[:2])
    image, mask = sample.image[:side, :side].copy(), sample.mask[:side, :side].copy()
    square = Sample("square", image, 0, lambda: mask)
    views = Views(size=side, scale=(1, 1), ratio=(1, 1), jitter_p=0, gray=0, blur=0, flip=0)
    background = Background(remove=1.0, fill="black", mask_blur=1.5, min_area=0, max_area=1)
    made = ViewPipeline(views, background).make(square, lambda: square, 3, 0).image
    alpha = cv2.GaussianBlur(binarize(mask), (0, 0), 1.5)
    assert np.array_equal(made, np.floor(image * (alpha[..., None] / 255.0) + 0.5))
    assert len(np.unique(alpha)) > 50


def test_the_mask_goes_with_its_foreground(samples: list[Sample]) -> None:
    """In `Compose` the mask target shows where the foreground is now."""
    image, mask = samples[0].image.copy(), samples[0].mask
    image[mask > 127] = 255
    crop = BackgroundResizedCrop((96, 96), remove=1.0, fill="black", foreground_position=1, min_area=0, max_area=1)
    compose = A.Compose([crop], seed=4)
    for _ in range(5):
        made = compose(image=image, mask=mask)
        wrong = (made["image"].max(-1) > 127) != (made["mask"] > 127)
        assert wrong.mean() < 0.06
