import pickle
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from bgsweep.data.datasets.folder import Folder
from bgsweep.data.datasets.mask_cache import MaskCache
from bgsweep.images.compositing import largest_background_rectangle


def soft_mask(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (30, 40), dtype=np.uint8)


def refuse() -> np.ndarray:
    raise AssertionError("decoded again")


def test_a_mask_is_decoded_once_and_kept_to_the_bit() -> None:
    outlines = MaskCache()
    for seed in range(5):
        assert np.array_equal(outlines.mask(seed, lambda: soft_mask(seed)), soft_mask(seed))  # noqa: B023
    for seed in range(5):
        assert np.array_equal(outlines.mask(seed, refuse), soft_mask(seed))
        rect = outlines.rect(seed, refuse)
        assert rect == largest_background_rectangle(soft_mask(seed)) == outlines.rect(seed, refuse)


def test_memory_is_bounded() -> None:
    outlines = MaskCache(limit=1000)
    for seed in range(20):
        outlines.rect(seed, lambda: soft_mask(seed))  # noqa: B023
    assert np.array_equal(outlines.mask(19, lambda: soft_mask(19)), soft_mask(19))
    with pytest.raises(AssertionError, match="decoded again"):
        outlines.mask(19, refuse)
    assert len(outlines._masks) == len(outlines._rects) == 1


def test_copies_begin_empty() -> None:
    outlines = MaskCache(limit=7)
    outlines.mask(0, lambda: soft_mask(0))
    copy = pickle.loads(pickle.dumps(outlines))
    assert copy.limit == 7
    with pytest.raises(AssertionError, match="decoded again"):
        copy.mask(0, refuse)


def test_a_folder_reads_each_mask_once(tmp_path: Path) -> None:
    for index in range(2):
        for kind, array in (("images", np.zeros((30, 40, 3), np.uint8)), ("masks", soft_mask(index))):
            (tmp_path / kind).mkdir(exist_ok=True)
            PIL.Image.fromarray(array).save(tmp_path / kind / f"{index}.png")
    folder = Folder(tmp_path / "images", ".", tmp_path / "masks")
    first = [folder[index].mask for index in range(2)]
    for mask in (tmp_path / "masks").iterdir():
        mask.unlink()
    for index in range(2):
        assert np.array_equal(folder[index].mask, first[index])
        assert folder[index].background_rect == largest_background_rectangle(soft_mask(index))
