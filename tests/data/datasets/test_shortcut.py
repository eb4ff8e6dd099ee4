from pathlib import Path

import numpy as np
import pytest

from bgsweep.config import Shortcut
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.data.datasets.folder import Folder
from bgsweep.data.datasets.shortcut import ClassPools, Recomposed
from bgsweep.errors import UserError
from bgsweep.images.compositing import binarize, paste
from bgsweep.images.decoding import cover

SIDE = 48


@pytest.fixture(scope="module")
def train() -> EmbeddedSample:
    return EmbeddedSample("train", SIDE)


@pytest.fixture(scope="module")
def pools(train: EmbeddedSample) -> ClassPools:
    return ClassPools(train, seed=0)


def own_share(source: Recomposed) -> float:
    own = [source.background_of(index) in source.pools.by_class[label] for index, label in enumerate(source.labels)]
    return float(np.mean(own))


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.95, 1.0])
def test_share_of_backgrounds_from_the_own_pool_is_rho(train: EmbeddedSample, pools: ClassPools, rho: float) -> None:
    expected = rho + (1 - rho) * np.mean([len(pool) for pool in pools.train.by_class]) / len(pools.train.backgrounds)
    assert own_share(Recomposed(train, pools.train, Shortcut(rho=rho))) == pytest.approx(expected, abs=0.04)


def test_foreground_and_mask_stay_and_the_background_is_the_plate(train: EmbeddedSample, pools: ClassPools) -> None:
    source = Recomposed(train, pools.train, Shortcut())
    for index in range(0, len(source), 97):
        original, sample = train[index], source[index]
        assert original.mask is not None
        assert sample.id == original.id
        np.testing.assert_array_equal(sample.mask, original.mask)
        background = cover(pools.train.backgrounds[source.background_of(index)], *original.image.shape[:2])
        np.testing.assert_array_equal(sample.image, paste(original.image, original.mask, background))
        foreground = binarize(original.mask) > 0
        np.testing.assert_array_equal(sample.image[foreground], original.image[foreground])


def test_backgrounds_depend_on_seed_and_id_alone(train: EmbeddedSample, pools: ClassPools) -> None:
    def backgrounds(seed: int) -> list[int]:
        source = Recomposed(train, pools.train, Shortcut(seed=seed))
        return [source.background_of(index) for index in range(len(source))]

    again = ClassPools(train, seed=0)
    assert backgrounds(0) == backgrounds(0) != backgrounds(1)
    assert all(np.array_equal(a, b) for a, b in zip(again.train.by_class, pools.train.by_class, strict=True))


def test_pools_are_disjoint_and_alike_within(pools: ClassPools) -> None:
    members = np.concatenate(pools.train.by_class)
    assert sorted(members) == list(range(len(pools.train.backgrounds)))
    colours = np.array([background.mean(axis=(0, 1)) for background in pools.train.backgrounds])
    within = np.mean([colours[pool].var(axis=0).sum() for pool in pools.train.by_class])
    assert within < 0.4 * colours.var(axis=0).sum()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_other_splits_have_their_own_plates_in_like_pools(pools: ClassPools, split: str) -> None:
    source = EmbeddedSample(split, SIDE)
    of_split = pools.of(source)
    assert all(len(pool) >= 3 for pool in of_split.by_class)
    for label, pool in enumerate(of_split.by_class):
        colour = np.mean([of_split.backgrounds[index].mean(axis=(0, 1)) for index in pool], axis=0)
        distances = [
            np.linalg.norm(
                colour - np.mean([pools.train.backgrounds[index].mean(axis=(0, 1)) for index in other], axis=0)
            )
            for other in pools.train.by_class
        ]
        assert label in np.argsort(distances)[:3]


def test_a_split_with_few_backgrounds_falls_back_on_the_training_pool(tree: Path, pools: ClassPools) -> None:
    few = Folder(tree / "images", "test", tree / "masks", SIDE, sorted(EmbeddedSample("test").classes))
    of_split = pools.of(few)
    substitutes = [label for label, pool in enumerate(of_split.by_class) if pool[0] >= len(few)]
    assert substitutes
    for label in substitutes:
        pairs = zip(of_split.by_class[label], pools.train.by_class[label], strict=True)
        assert all(of_split.backgrounds[own] is pools.train.backgrounds[theirs] for own, theirs in pairs)


def test_set_without_classes_is_refused(tree: Path) -> None:
    flat = Folder(tree / "images" / "train", "hat", tree / "masks" / "train")
    with pytest.raises(UserError, match=r"data\.shortcut: train/hat has no class folders"):
        ClassPools(flat, seed=0)
