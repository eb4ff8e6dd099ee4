import pickle
from pathlib import Path

import numpy as np
import pytest

from bgsweep.config import Data, Shortcut
from bgsweep.data import open_splits
from bgsweep.data.datasets.folder import Folder


def test_sample_opens_by_default() -> None:
    splits = open_splits(Data())
    assert [len(source) for source in (splits.train, splits.validation, splits.test)] == [960, 200, 200]
    assert splits.pools("test") is None


def test_trials_of_a_process_share_what_they_read() -> None:
    data = Data(resize=40, cache=True)
    splits = open_splits(data)
    assert open_splits(data.model_copy(update={"loader_workers": 3})) is splits
    assert splits.train[7].image is splits.train[7].image
    assert splits.train[7].mask is splits.train[7].mask
    assert open_splits(Data(resize=41)) is not splits


def test_cached_pixels_cannot_be_changed_and_copies_start_empty() -> None:
    source = open_splits(Data(resize=40, cache=True)).train
    with pytest.raises(ValueError, match="read-only"):
        source[0].image[0, 0] = 0
    assert len(pickle.dumps(source)) < 5_000_000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[0].image, source[0].image)


def test_shortcut_recomposes_the_training_split_alone() -> None:
    plain, shortcut = open_splits(Data(resize=48)), open_splits(Data(resize=48, shortcut=Shortcut()))
    assert (plain.train[0].image != shortcut.train[0].image).any()
    for split in ("validation", "test"):
        np.testing.assert_array_equal(getattr(plain, split)[3].image, getattr(shortcut, split)[3].image)
    assert shortcut.pools("test") is shortcut.pools("test")


def test_hold_out_takes_its_share_of_each_class_and_nothing_twice(tree: Path) -> None:
    data = Data(images=str(tree / "images"), masks=str(tree / "masks"), validation=None, test=None, holdout=0.34)
    splits = open_splits(data)
    assert np.bincount(splits.validation.labels).tolist() == [2, 2, 2]
    assert np.bincount(splits.train.labels).tolist() == [4, 4, 4]
    assert splits.test is splits.validation
    whole = Folder(tree / "images", "train")
    assert sorted([*splits.train.ids, *splits.validation.ids]) == list(whole.ids)
    for source in (splits.train, splits.validation):
        assert [source[index].id for index in range(len(source))] == list(source.ids)
    assert splits.train.digests().keys() == {"images", "masks"}
    assert splits.train.digests() != splits.validation.digests()
