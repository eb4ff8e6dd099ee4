import hashlib

import numpy as np
import pytest

from bgsweep.data.datasets.bundled import ARCHIVE, EmbeddedSample
from bgsweep.errors import UserError


def test_archive_keeps_within_five_megabytes_and_is_credited() -> None:
    assert ARCHIVE.stat().st_size <= 5_000_000
    assert "CC0 1.0" in ARCHIVE.with_name("CREDITS.md").read_text()


@pytest.mark.parametrize(("split", "share"), [("train", 96), ("validation", 20), ("test", 20)])
def test_classes_have_equal_shares_and_every_image_a_mask(split: str, share: int) -> None:
    source = EmbeddedSample(split)
    assert len(source.classes) == 10
    assert np.bincount(source.labels).tolist() == [share] * 10
    for index in range(len(source)):
        sample = source[index]
        mask = sample.mask
        assert mask is not None
        assert mask.shape == sample.image.shape[:2]
        assert min(mask.shape) >= 48
        assert 0 < np.count_nonzero(mask == 255) < mask.size
        assert np.isin(mask, (0, 255)).all()


def test_no_image_is_in_two_splits() -> None:
    contents = [
        hashlib.sha256(source[index].image.tobytes()).digest()
        for source in map(EmbeddedSample, ("train", "validation", "test"))
        for index in range(len(source))
    ]
    assert len(set(contents)) == 1360


def test_unknown_split_is_named() -> None:
    with pytest.raises(UserError, match=r"no split 'val'; it has train, validation and test"):
        EmbeddedSample("val")
