"""Fingerprints tell the same images at another path from others."""

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.data.datasets.cached import Cached
from bgsweep.data.datasets.folder import Folder
from bgsweep.data.datasets.pack import Pack
from bgsweep.data.datasets.pack_writer import make_pack
from bgsweep.data.datasets.wrappers import Subset
from bgsweep.data.fingerprint import fingerprint


def of(root: Path) -> str:
    return fingerprint(Folder(root / "images", "train", root / "masks"))


def test_a_copy_a_pack_and_a_wrapper_are_the_same_images(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    copy = tmp_path_factory.mktemp("elsewhere") / "data"
    shutil.copytree(tree, copy)
    make_pack(str(tree / "images"), str(tree / "masks"), str(tree / "pack"))
    assert of(tree) == of(copy) == fingerprint(Pack(str(tree / "pack"), "train"))
    assert of(tree) == fingerprint(Cached(Folder(copy / "images", "train", copy / "masks")))


def reencode(tree: Path) -> None:
    path = sorted(tree.glob("images/train/*/*.jpg"))[3]
    assert cv2.imwrite(str(path), cv2.imread(str(path)), [cv2.IMWRITE_JPEG_QUALITY, 60])


def invert_a_mask(tree: Path) -> None:
    path = sorted(tree.glob("masks/train/*/*.png"))[3]
    assert cv2.imwrite(str(path), 255 - cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))


def rename_an_image(tree: Path) -> None:
    for path in [*tree.glob("images/train/hat/*")][:1]:
        for each in (path, tree / "masks" / "train" / "hat" / f"{path.stem}.png"):
            each.rename(each.with_stem("another"))


def rename_a_class(tree: Path) -> None:
    for kind in ("images", "masks"):
        (tree / kind / "train" / "hat").rename(tree / kind / "train" / "cap")


def leave_one_out(tree: Path) -> None:
    sorted(tree.glob("images/train/*/*.jpg"))[3].unlink()


@pytest.mark.parametrize("change", [reencode, invert_a_mask, rename_an_image, rename_a_class, leave_one_out])
def test_any_change_of_images_or_masks_shows(tree: Path, change: Callable[[Path], None]) -> None:
    before = of(tree)
    change(tree)
    assert of(tree) != before


def test_images_without_masks_are_others(tree: Path) -> None:
    assert fingerprint(Folder(tree / "images", "train")) != of(tree)


def test_parts_of_a_set_differ_and_files_that_cannot_be_read_are_passed_over(tree: Path) -> None:
    sample = EmbeddedSample("train")
    first, second = (fingerprint(Subset(sample, np.arange(start, start + 50), "part")) for start in (0, 50))
    assert first != second != fingerprint(sample)
    sorted(tree.glob("images/train/*/*.jpg"))[3].write_bytes(b"")
    assert of(tree)
