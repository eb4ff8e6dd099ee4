"""From the page to a tree of masks without the bad ones."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bgsweep.errors import UserError
from bgsweep.masks.marks import FORMAT
from bgsweep.workflows.make_masks import make_masks
from bgsweep.workflows.review_masks import drop_masks
from tests.command import bgsweep

NAMES = [f"train/{number}.png" for number in range(12)]


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        _write(tmp_path / "masks" / name, 20 + number)
        _write(tmp_path / "others" / name, 60 + number)
    return tmp_path / "masks"


def _write(path: Path, side: int, shape: tuple[int, int] = (90, 80)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(shape, np.uint8)
    mask[:side, :side] = 255
    cv2.imwrite(str(path), mask)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def review(masks: Path, marks: dict[int, str], sampled: int = 6, listed: int = 4) -> Path:
    """The page's JSON: the first masks drawn at random, the last ones most suspicious."""
    items = [
        {
            "mask": name,
            "sha256": hashlib.sha256((masks / name).read_bytes()).hexdigest(),
            "sampled": number < sampled,
            "listed": number >= len(NAMES) - listed,
            "mark": marks.get(number),
        }
        for number, name in enumerate(NAMES)
    ]
    path = masks.parent / "review.json"
    path.write_text(json.dumps({"format": FORMAT, "masks": str(masks), "pairs": len(NAMES), "items": items}))
    return path


def test_bad_masks_are_moved_aside_once(masks: Path) -> None:
    before = _contents(masks)
    path = review(masks, {1: "bad", 2: "good", 11: "bad"})
    result = drop_masks(str(masks), path)
    moved = {NAMES[1]: before[NAMES[1]], NAMES[11]: before[NAMES[11]]}
    assert _contents(Path(result["aside"])) == moved == _contents(masks.parent / "masks-dropped")
    assert _contents(masks) == {name: data for name, data in before.items() if name not in moved}
    assert (result["dropped"], result["good"], result["unmarked"], result["too_many"]) == (2, 1, 9, True)
    again = drop_masks(str(masks), path)
    assert (again["dropped"], again["earlier"]) == (0, 2)
    assert _contents(masks.parent / "masks-dropped") == moved


def test_a_uri_is_reviewed_as_a_folder_is(masks: Path) -> None:
    path = review(masks, {1: "bad"})
    assert drop_masks(f"file://{masks}", path)["aside"] == f"file://{masks}-dropped"
    assert list(_contents(masks.parent / "masks-dropped")) == [NAMES[1]]
    assert NAMES[1] not in _contents(masks)


def test_a_run_that_was_killed_is_finished_by_the_next(masks: Path) -> None:
    path = review(masks, {1: "bad", 3: "bad"})
    before = _contents(masks)
    for name in (NAMES[1], NAMES[3]):  # one put aside and not yet removed, one already removed
        (masks.parent / "masks-dropped" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(masks / name, masks.parent / "masks-dropped" / name)
    (masks / NAMES[3]).unlink()
    assert drop_masks(str(masks), path)["dropped"] == 1
    assert len(_contents(masks)) == 10
    assert _contents(masks.parent / "masks-dropped") == {name: before[name] for name in (NAMES[1], NAMES[3])}


def test_bad_masks_are_replaced(masks: Path) -> None:
    before, others = _contents(masks), _contents(masks.parent / "others")
    path = review(masks, {1: "bad", 11: "bad"})
    result = drop_masks(str(masks), path, str(masks.parent / "others"), str(masks.parent / "old"))
    assert (result["replaced"], result["dropped"]) == (2, 0)
    assert _contents(masks) == {**before, NAMES[1]: others[NAMES[1]], NAMES[11]: others[NAMES[11]]}
    assert set(_contents(masks.parent / "old")) == {NAMES[1], NAMES[11]}


def test_dropped_masks_can_be_replaced_later(masks: Path) -> None:
    path = review(masks, {1: "bad"})
    drop_masks(str(masks), path)
    assert drop_masks(str(masks), path, str(masks.parent / "others"))["replaced"] == 1
    assert _contents(masks)[NAMES[1]] == _contents(masks.parent / "others")[NAMES[1]]


def test_the_share_of_bad_masks_comes_from_the_random_sample(masks: Path) -> None:
    marks = dict.fromkeys(range(6), "good") | {1: "bad", 10: "bad", 11: "bad"}
    result = drop_masks(str(masks), review(masks, marks))
    share = result["share"]
    assert (share["bad"], share["marked"], result["sample_unmarked"]) == (1, 6, 0)
    assert [round(share[key], 3) for key in ("share", "lower", "upper")] == [0.167, 0.030, 0.564]  # Wilson's
    del marks[0]
    for name in NAMES[10:]:
        _write(masks / name, 20 + int(name[6:-4]))
    _write(masks / NAMES[1], 21)
    for path in (masks.parent / "masks-dropped").rglob("*.png"):
        path.unlink()
    result = drop_masks(str(masks), review(masks, marks, sampled=12, listed=6))
    assert (result["share"]["marked"], result["sample_unmarked"]) == (7, 5)
    assert (result["share_unlisted"]["bad"], result["share_unlisted"]["marked"]) == (1, 5)


def test_what_the_command_prints(masks: Path) -> None:
    marks = dict.fromkeys(range(5), "good") | {1: "bad", 10: "bad", 11: "bad"}
    review(masks, marks)
    done = bgsweep("masks", "drop", "masks", "review.json", folder=masks.parent)
    assert done.stdout.splitlines() == [
        "3 bad masks dropped; they lie in masks-dropped (4 good, 5 unmarked)",
        "bad among all masks: 20 % (95 %: 4 to 62 %), 1 of 5 drawn at random",
        "bad among the masks that were not listed as suspicious: 20 % (95 %: 4 to 62 %), 1 of 5 drawn at random",
        "unmarked in the random sample: 1; these shares may be off",
        "more than a tenth of the images have no mask now, which training refuses; give others by --replace",
    ]
    done = bgsweep("masks", "drop", "masks", "review.json", "--replace", "others", folder=masks.parent)
    assert done.stdout.startswith("3 bad masks replaced; they lie in masks-dropped")


def test_a_review_of_other_masks_changes_nothing(masks: Path) -> None:
    path = review(masks, {1: "bad", 2: "bad"})
    _write(masks / NAMES[2], 7)
    before = _contents(masks)
    with pytest.raises(
        UserError, match=r"1 of the 12 masks of .*review\.json are missing or have changed .* train/2\.png; n"
    ):
        drop_masks(str(masks), path)
    with pytest.raises(UserError, match=r"others: 12 of the 12 masks"):
        drop_masks(str(masks.parent / "others"), path)
    with pytest.raises(UserError, match=r"nowhere: no such folder, or no masks in it; name the masks of .*masks\)"):
        drop_masks(str(masks.parent / "nowhere"), path)
    assert _contents(masks) == before and not (masks.parent / "masks-dropped").exists()


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (None, r"others/train/1\.png: cannot be read .*; make the masks"),
        ((9, 80), r"others/train/1\.png .* 80x9 and 80x90; make"),
    ],
)
def test_masks_that_cannot_replace_others_are_refused(masks: Path, shape: Any, said: str) -> None:
    other = masks.parent / "others" / NAMES[1]
    other.unlink()
    if shape:
        _write(other, 5, shape)
    before = _contents(masks)
    path = review(masks, {0: "bad", 1: "bad"})
    with pytest.raises(UserError, match=said):
        drop_masks(str(masks), path, str(masks.parent / "others"))
    assert _contents(masks) == before


def test_masks_that_were_dropped_or_replaced_are_not_made_again(masks: Path) -> None:
    for number in range(3):
        image = np.full((90, 80, 3), 40, np.uint8)
        image[20:60, 20:60] = 60 + 50 * number
        cv2.imwrite(str(masks.parent / f"{number}.jpg"), image)
        (masks.parent / "images").mkdir(exist_ok=True)
        (masks.parent / f"{number}.jpg").rename(masks.parent / "images" / f"{number}.jpg")
    made, others = masks.parent / "made", masks.parent / "by-mbd"
    for folder, method in ((made, "grabcut"), (others, "mbd")):
        make_masks(str(masks.parent / "images"), str(folder), method, workers=1)
    names = ["0.png", "1.png", "2.png"]
    for mark, replace in ((0, None), (1, str(others))):
        items = [
            {
                "mask": name,
                "sha256": hashlib.sha256((made / name).read_bytes()).hexdigest(),
                "sampled": False,
                "listed": True,
                "mark": "bad" if number == mark else None,
            }
            for number, name in enumerate(names[mark:], mark)
        ]
        path = masks.parent / "review.json"
        path.write_text(json.dumps({"format": FORMAT, "masks": "made", "pairs": 3, "items": items}))
        drop_masks(str(made), path, replace)
    (made / "2.png").unlink()
    assert make_masks(str(masks.parent / "images"), str(made), "grabcut", workers=1)["made"] == 1
    assert sorted(_contents(made)) == ["1.png", "2.png"]
    assert _contents(made)["1.png"] == _contents(others)["1.png"]
    assert make_masks(str(masks.parent / "images"), str(made), "grabcut", workers=1)["made"] == 0


def test_folders_that_would_mix_masks_are_refused(masks: Path) -> None:
    path = review(masks, {1: "bad"})
    with pytest.raises(UserError, match=r"--aside .*: inside .*, where it would be taken for masks; name another"):
        drop_masks(str(masks), path, aside=str(masks / "aside"))
    with pytest.raises(
        UserError, match=r"others/train/1\.png: another mask lies there; name another folder by --aside"
    ):
        drop_masks(str(masks), path, aside=str(masks.parent / "others"))
