from pathlib import Path

import cv2
import numpy as np
import pytest

from bgsweep.errors import UserError
from bgsweep.masks.score import score, score_trees
from bgsweep.storage.tree import open_tree


def _slow(mask: np.ndarray, truth: np.ndarray) -> tuple[list[float], float, float]:
    pixels = [(int(m), int(t) > 127) for m, t in zip(mask.ravel(), truth.ravel(), strict=True)]
    curve = []
    for threshold in range(256):
        hits = sum(m >= threshold and t for m, t in pixels)
        found, wanted = sum(m >= threshold for m, _ in pixels), sum(t for _, t in pixels)
        if found + wanted == 0:
            curve.append(1.0)
            continue
        precision, recall = hits / found if found else 0.0, hits / wanted if wanted else 0.0
        below = 0.3 * precision + recall
        curve.append(1.3 * precision * recall / below if below else 0.0)
    union = sum(m > 127 or t for m, t in pixels)
    iou = sum(m > 127 and t for m, t in pixels) / union if union else 1.0
    return curve, sum(abs(m / 255 - t) for m, t in pixels) / len(pixels), iou


def _pair(kind: str) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(5)
    mask, truth = draws.integers(0, 256, (2, 9, 13)).astype(np.uint8)
    none = np.zeros_like(mask)
    return {
        "soft": (mask, truth),
        "nothing found": (none, truth),
        "nothing there": (mask, none),
        "both empty": (none, none),
        "perfect": (np.where(truth > 127, 255, 0).astype(np.uint8), truth),
    }[kind]


@pytest.mark.parametrize("kind", ["soft", "nothing found", "nothing there", "both empty", "perfect"])
def test_equals_a_slow_reference(kind: str) -> None:
    mask, truth = _pair(kind)
    curve, mae, iou = _slow(mask, truth)
    found = score(mask, truth)
    np.testing.assert_allclose(found.f_beta, curve, atol=1e-12)
    assert (found.mae, found.iou) == pytest.approx((mae, iou))


def _write(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), mask)


def test_trees_are_scored_by_the_mean_curve(tmp_path: Path) -> None:
    kinds = ("soft", "nothing found", "perfect")
    for kind in kinds:
        mask, truth = _pair(kind)
        _write(tmp_path / "masks/a" / f"{kind}.png", mask)
        _write(tmp_path / "truth/a" / f"{kind}.png", truth)
    _write(tmp_path / "masks/more.png", mask)
    result, table = score_trees(open_tree(str(tmp_path / "masks")), open_tree(str(tmp_path / "truth")))
    slow = [_slow(*_pair(kind)) for kind in kinds]
    curve = np.mean([one[0] for one in slow], axis=0)
    assert result["max_f_beta"] == pytest.approx(curve.max())
    assert result["mean_f_beta"] == pytest.approx(curve.mean())
    assert result["mae"] == pytest.approx(np.mean([one[1] for one in slow]))
    assert result["iou"] == pytest.approx(np.mean([one[2] for one in slow]))
    assert (result["images"], result["without_truth"], result["without_mask"]) == (3, 1, 0)
    assert result["worst"][0] == {"mask": "a/nothing found.png", "iou": 0.0}
    lines = table.splitlines()
    assert lines[0] == "mask,max_f_beta,mean_f_beta,mae,iou"
    assert lines[2].startswith("a/perfect.png,1.000000,") and lines[2].endswith(",1.000000")


def test_bad_trees_are_one_clear_line(tmp_path: Path) -> None:
    mask, truth = _pair("soft")
    _write(tmp_path / "masks/x.png", mask)

    def run() -> None:
        score_trees(open_tree(str(tmp_path / "masks")), open_tree(str(tmp_path / "truth")))

    with pytest.raises(UserError, match=r"truth: no such folder, or no masks"):
        run()
    _write(tmp_path / "truth/y.png", truth)
    with pytest.raises(UserError, match=r"none of its 1 masks has a PNG of the same name in .*truth"):
        run()
    _write(tmp_path / "truth/x.png", truth[:5])
    with pytest.raises(UserError, match=r"x\.png: .* differ in size: 13x9 and 13x5"):
        run()
    (tmp_path / "truth/x.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"none of the 1 masks can be scored; .*truth/x\.png: damaged"):
        run()
