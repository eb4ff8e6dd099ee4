import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config import Background, Data, MaskNoise, Views, resolve
from bgsweep.data import ImageDataset, open_splits
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.data.datasets.cached import Cached
from bgsweep.data.datasets.folder import Folder
from bgsweep.data.datasets.mask_noise import NoisyMasks, blur, bounding_box, grow
from bgsweep.data.loader import Batches
from bgsweep.errors import UserError
from bgsweep.images.compositing import inpaint_background, largest_background_rectangle


@pytest.fixture(scope="module")
def clean() -> ImageDataset:
    return EmbeddedSample("test")


def masks(source: ImageDataset) -> list[np.ndarray]:
    found = [source[index].mask for index in range(len(source))]
    return [mask for mask in found if mask is not None]


def test_grown_masks_are_those_of_a_slow_disc() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[8:12, 9:20] = 255
    inside = np.argwhere(mask > 0)
    for pixels in (1, 3):
        far = np.array([[np.abs(inside - (y, x)).max(axis=1).min() for x in range(30)] for y in range(20)])
        near = np.array([[np.linalg.norm(inside - (y, x), axis=1).min() for x in range(30)] for y in range(20)])
        found = grow(mask, pixels) > 127
        assert found[near <= pixels - 0.5].all(), "a pixel within the radius was left out"
        assert not found[far > pixels].any(), "a pixel beyond the radius was taken in"
        assert (grow(grow(mask, pixels), -pixels) == mask).all()
        assert (grow(mask, -pixels) > 127).sum() < (mask > 127).sum()
    assert not grow(mask, -3).any()
    whole = np.full((9, 9), 255, np.uint8)
    np.testing.assert_array_equal(grow(whole, -3), whole)


def test_bounding_box_holds_all_foreground_and_touches_it() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[3, 5], mask[17, 11], mask[9, 28], mask[0, 0] = 255, 128, 200, 127
    expected = np.zeros_like(mask)
    expected[3:18, 5:29] = 255
    np.testing.assert_array_equal(bounding_box(mask), expected)
    assert not bounding_box(np.zeros_like(mask)).any()


def test_blur_rounds_corners_and_keeps_straight_edges() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 10:30] = 255
    found = blur(mask, 3.0) > 127
    assert not found[10, 10]
    assert found[11:29, 20].all() and not found[:9, 20].any()
    assert blur(mask, 0) is mask


def test_shares_are_kept_and_what_is_not_drawn_stays_as_it_is(clean: ImageDataset) -> None:
    noisy = NoisyMasks(clean, MaskNoise(drop=0.2, other=0.3, box=0.25))
    counts = {"dropped": 0, "same": 0, "box": 0, "other": 0}
    for before, after in zip(masks(clean), masks(noisy), strict=True):
        assert before.shape == after.shape
        kinds = {"dropped": ~after.any(), "same": np.array_equal(before, after)}
        kinds["box"] = np.array_equal(after, bounding_box(before))
        counts[next((kind for kind, is_so in kinds.items() if is_so), "other")] += 1
    shares = {kind: count / len(clean) for kind, count in counts.items()}
    assert shares == pytest.approx({"dropped": 0.2, "same": 0.25, "box": 0.25, "other": 0.3}, abs=0.09)
    assert [noisy[5].id, noisy[5].label] == [clean[5].id, clean[5].label]
    np.testing.assert_array_equal(noisy[5].image, clean[5].image)


@pytest.mark.parametrize("cached", [False, True])
def test_backgrounds_of_donors_are_those_of_the_degraded_mask(tree: Path, cached: bool) -> None:
    """Not of the clean one, of which a folder keeps the rectangle and a cache the painted background too."""
    source: ImageDataset = Folder(tree / "images", "train", tree / "masks")
    source = Cached(source) if cached else source
    clean = source[2]
    assert clean.background_rect is not None and clean.inpainted_background.any()
    for noise in (MaskNoise(grow=12), MaskNoise(drop=1.0)):
        noisy = NoisyMasks(source, noise)[2]
        assert noisy.mask is not None
        assert noisy.background_rect == largest_background_rectangle(noisy.mask) != clean.background_rect
        np.testing.assert_array_equal(noisy.inpainted_background, inpaint_background(noisy.image, noisy.mask))


def test_another_images_mask_is_one_of_the_others(clean: ImageDataset) -> None:
    noisy = NoisyMasks(clean, MaskNoise(other=1.0))
    found, own = noisy[7].mask, masks(clean)
    assert found is not None
    scaled = [cv2.resize(mask, found.shape[::-1]) for mask in own]
    owners = [index for index, mask in enumerate(scaled) if np.array_equal(mask, found)]
    assert owners and 7 not in owners


def test_the_same_in_any_order_and_process(clean: ImageDataset) -> None:
    noise = MaskNoise(drop=0.2, other=0.3, box=0.2, grow=2, blur=1.5)
    first = masks(NoisyMasks(clean, noise))
    copy: NoisyMasks = pickle.loads(pickle.dumps(NoisyMasks(clean, noise)))
    for index in reversed(range(len(copy))):
        np.testing.assert_array_equal(copy[index].mask, first[index])
    other = masks(NoisyMasks(clean, noise.model_copy(update={"seed": 1})))
    assert any(not np.array_equal(one, another) for one, another in zip(first, other, strict=True))


def test_only_training_masks_are_spoilt() -> None:
    noise = MaskNoise(box=1.0)
    for shortcut in (None, {"rho": 0.95}):
        spoilt = open_splits(Data.model_validate({"mask_noise": noise, "shortcut": shortcut}))
        clean = open_splits(Data.model_validate({"shortcut": shortcut}))
        np.testing.assert_array_equal(spoilt.train[3].image, clean.train[3].image)
        assert clean.train[3].mask is not None
        np.testing.assert_array_equal(spoilt.train[3].mask, bounding_box(clean.train[3].mask))
        for split in ("validation", "test"):
            np.testing.assert_array_equal(getattr(spoilt, split)[3].mask, getattr(clean, split)[3].mask)


def test_views_without_a_mask_keep_their_background() -> None:
    source = open_splits(Data(mask_noise=MaskNoise(drop=0.5))).train
    batch = next(Batches(source, ViewPipeline(Views(size=16), Background(remove=1.0)), 200, 0).epoch(0))
    assert batch.counts["kept_small"] / batch.counts["views"] == pytest.approx(0.5, abs=0.12)
    assert batch.counts["removed"] + batch.counts["kept_small"] + batch.counts.get("kept_large", 0) == 400


def test_every_value_can_be_searched() -> None:
    space = {
        "data.mask_noise.grow": {"grid": [-4, 0, 4]},
        "data.mask_noise.blur": {"grid": [0.0, 2.0]},
        **{f"data.mask_noise.{key}": {"grid": [0.0, 0.3]} for key in ("drop", "other", "box")},
    }
    file = resolve({"space": space, "search": {"algorithm": "grid"}})
    assert file.experiment.with_values({"data.mask_noise.grow": -4}).data.mask_noise.grow == -4
    assert file.experiment.with_values({"data.mask_noise.grow": -4}).digest != file.experiment.digest


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"mask_noise": {"drop": 0.6, "box": 0.6}}, r"data\.mask_noise: drop, other and box .* sum is above 1"),
        ({"mask_noise": {"blur": -1}}, r"data\.mask_noise\.blur: .*greater than or equal to 0"),
        ({"mask_noise": {"dilate": 1}}, r"data\.mask_noise\.dilate: unknown key"),
        (
            {"images": "photos", "mask_noise": {"grow": 2}},
            r"data\.mask_noise: there are no masks to degrade; set data\.m",
        ),
    ],
)
def test_a_wrong_value_is_named(data: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        resolve({"experiment": {"data": data}})
