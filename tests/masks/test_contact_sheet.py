from pathlib import Path

import cv2
import numpy as np
import pytest

from bgsweep.errors import UserError
from bgsweep.masks.contact_sheet import contact_sheet
from bgsweep.masks.second import Second, second_masks
from bgsweep.storage.tree import open_tree
from tests.masks.conftest import Extract

ALONE = Second(None, None)


def test_the_strangest_stand_first_with_their_outlines(extract_images: Extract, tmp_path: Path) -> None:
    images = extract_images(12)
    paths = sorted((tmp_path / "truth").rglob("*.png"))
    for path, level in ((paths[7], 0), (paths[3], 255)):
        cv2.imwrite(str(path), np.full_like(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), level))
    paths[0].unlink()
    sheet, said = contact_sheet(open_tree(str(images)), open_tree(str(tmp_path / "truth")), 10, ALONE, 100)
    assert [item["reason"] for item in said["strangest"][:2]] == ["empty", "full 100 %"]
    assert Path(said["strangest"][0]["image"]).stem == paths[7].stem
    assert (said["images"], said["shown"], said["without_mask"]) == (11, 10, 1)
    pink = (sheet == (255, 64, 129)).all(axis=2)
    cells = [pink[48:176, 20 + 136 * column : 148 + 136 * column].sum() for column in range(8)]
    assert cells[0] == 0
    assert all(count > 50 for count in cells[2:])
    assert sheet.shape[0] == 2 * 20 + 28 + 3 * 156 - 8, "two rows of suspicious masks and a random one"


def test_masks_of_other_objects_are_found_by_a_second_method(extract_images: Extract, tmp_path: Path) -> None:
    images, truth = extract_images(16), tmp_path / "truth"
    paths = sorted(truth.rglob("*.png"))
    wrong = paths[::4]
    masks = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in wrong]
    for path, mask, other in zip(wrong, masks, [*masks[1:], masks[0]], strict=True):
        cv2.imwrite(str(path), np.roll(cv2.resize(other, mask.shape[::-1]), 40, axis=(0, 1)))
    tree = open_tree(str(truth))
    _, said = contact_sheet(open_tree(str(images)), tree, 4, second_masks("rbd"), 100)
    assert len({Path(item["image"]).stem for item in said["strangest"]} & {path.stem for path in wrong}) >= 3


def test_a_strip_can_be_shown(tmp_path: Path) -> None:
    for name, level in (("images/strip.png", 90), ("masks/strip.png", 255)):
        (tmp_path / name).parent.mkdir()
        cv2.imwrite(str(tmp_path / name), np.full((10, 20_000), level, np.uint8))
    sheet, said = contact_sheet(open_tree(str(tmp_path / "images")), open_tree(str(tmp_path / "masks")), 4, ALONE, 9)
    assert said["shown"] == 1
    assert sheet.shape[1] < 400


def test_masks_of_other_images_are_told_or_refused(extract_images: Extract, tmp_path: Path) -> None:
    images = extract_images(2)
    path = min((tmp_path / "truth").rglob("*.png"))
    cv2.imwrite(str(path), np.zeros((5, 4), np.uint8))
    _, said = contact_sheet(open_tree(str(images)), open_tree(str(tmp_path / "truth")), 4, ALONE, 9)
    (line,) = said["unreadable"]
    assert "4x5 pixels, but its image" in line and said["shown"] == 1
    with pytest.raises(UserError, match=r"has no mask for any of the 2 images"):
        contact_sheet(open_tree(str(images)), open_tree(str(images)), 4, ALONE, 9)
