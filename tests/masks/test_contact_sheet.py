from pathlib import Path

import cv2
import numpy as np
import pytest

from bgsweep.errors import UserError
from bgsweep.masks.contact_sheet import contact_sheet, rate
from bgsweep.storage.tree import open_tree
from tests.masks.conftest import Extract


def _disc(side: int = 100) -> np.ndarray:
    return cv2.circle(np.zeros((side, side), np.uint8), (side // 2, side // 2), side // 4, 255, -1)


def _speckled() -> np.ndarray:
    cells = np.random.default_rng(0).integers(0, 2, (25, 25)).astype(np.uint8) * 255
    return np.kron(cells, np.ones((4, 4), np.uint8))


def test_empty_then_tiny_then_full_then_speckled_then_whole() -> None:
    tiny = np.zeros((100, 100), np.uint8)
    tiny[50:55, 50:55] = 255
    masks = [np.zeros((100, 100), np.uint8), tiny, np.full((100, 100), 255, np.uint8), _speckled(), _disc()]
    ratings = [rate(mask) for mask in masks]
    suspicion = [rating.suspicion for rating in ratings]
    assert suspicion == sorted(suspicion, reverse=True)
    assert len(set(suspicion)) == 5
    reasons = [rating.reason for rating in ratings]
    assert reasons[:3] == ["empty", "tiny 0.2 %", "full 100 %"]
    assert reasons[3].endswith("pieces")
    assert reasons[4] == "20 %"


def test_vague_and_cut_off_masks_are_told_from_whole_ones() -> None:
    vague = cv2.GaussianBlur(_disc(), (0, 0), 12)
    assert rate(vague).reason.endswith("uncertain")
    left = np.zeros((100, 100), np.uint8)
    left[:, :60] = 255
    assert rate(left).reason == "55 % of the rim"


def test_the_strangest_stand_first_with_their_outlines(extract_images: Extract, tmp_path: Path) -> None:
    images = extract_images(12)
    paths = sorted((tmp_path / "truth").rglob("*.png"))
    for path, level in ((paths[7], 0), (paths[3], 255)):
        cv2.imwrite(str(path), np.full_like(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), level))
    paths[0].unlink()
    sheet, said = contact_sheet(open_tree(str(images)), open_tree(str(tmp_path / "truth")), 10)
    assert [item["reason"] for item in said["strangest"][:2]] == ["empty", "full 100 %"]
    assert Path(said["strangest"][0]["image"]).stem == paths[7].stem
    assert (said["images"], said["shown"], said["without_mask"]) == (11, 10, 1)
    pink = (sheet == (255, 64, 129)).all(axis=2)
    cells = [pink[48:176, 20 + 136 * column : 148 + 136 * column].sum() for column in range(8)]
    assert cells[0] == 0
    assert all(count > 50 for count in cells[1:])


def test_a_strip_can_be_shown(tmp_path: Path) -> None:
    for name, level in (("images/strip.png", 90), ("masks/strip.png", 255)):
        (tmp_path / name).parent.mkdir()
        cv2.imwrite(str(tmp_path / name), np.full((10, 20_000), level, np.uint8))
    sheet, said = contact_sheet(open_tree(str(tmp_path / "images")), open_tree(str(tmp_path / "masks")), 4)
    assert said["shown"] == 1
    assert sheet.shape[1] < 400


def test_masks_of_other_images_are_refused(extract_images: Extract, tmp_path: Path) -> None:
    images = extract_images(2)
    path = min((tmp_path / "truth").rglob("*.png"))
    cv2.imwrite(str(path), np.zeros((5, 4), np.uint8))
    with pytest.raises(UserError, match=r"4x5 pixels, but its image .*\.jpg has \d+x\d+"):
        contact_sheet(open_tree(str(images)), open_tree(str(tmp_path / "truth")), 4)
    with pytest.raises(UserError, match=r"has no mask for any of the 2 images"):
        contact_sheet(open_tree(str(images)), open_tree(str(images)), 4)
