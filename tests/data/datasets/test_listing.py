"""The index of files that list images: its classes, and when it is made anew."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from bgsweep.config.columns import Columns
from bgsweep.data.datasets import formats, listed_masks, listing
from bgsweep.data.datasets.listed import Listed
from tests.forms import FORMS, table, write_csv
from tests.inputs import write_images


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images and masks of real size, listed by files as large as those whose index is kept."""
    monkeypatch.setenv("BGSWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(listing, "_KEPT_FROM", 0)
    monkeypatch.setattr(listed_masks, "DIGESTED_WHOLE", 1)
    write_images(tmp_path)
    return tmp_path


def split(uri: str, masks: str = "included") -> Listed:
    """As a new process opens it."""
    formats._listing.cache_clear()
    found = formats.open_listing(uri, Columns())
    assert found is not None
    return Listed(found, "train", masks)


def flip(folder: Path, kind: str) -> None:
    """Write the files of a folder over in place."""
    for path in (folder / kind / "train").rglob("*.*g"):
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.ascontiguousarray(pixels[::-1]))


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_images_and_masks_that_were_written_over_have_other_digests(folder: Path, form: str) -> None:
    uri = FORMS[form](folder)
    before = split(uri)
    assert split(uri).identity == before.identity, "the index is kept"
    flip(folder, "masks")
    masks = split(uri)
    assert masks.digests()["images"] == before.digests()["images"] and masks.identity != before.identity
    assert masks.digests()["masks"] != before.digests()["masks"]
    flip(folder, "photos")
    assert split(uri).digests()["images"] != before.digests()["images"]
    assert pickle.loads(pickle.dumps(before))[0].id == before.ids[0], "a run that is going on keeps its index"


def test_masks_that_another_file_lists_have_other_digests_too(folder: Path) -> None:
    lines = table(folder)
    uri = write_csv(folder / "photos.csv", [{key: line[key] for key in ("path", "split")} for line in lines])
    own = [{"path": line["mask"].replace("masks/", "photos/", 1), "split": line["split"]} for line in lines]
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "photos").symlink_to(folder / "masks")
    masks = write_csv(folder / "elsewhere" / "masks.csv", own)
    before = split(uri, masks).digests()
    assert split(uri, masks).digests() == before
    flip(folder, "masks")
    after = split(uri, masks).digests()
    assert after["images"] == before["images"] and after["masks"] != before["masks"]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["10", "9", "1", "01", "001", "٣"], ["001", "01", "1", "٣", "9", "10"]),
        (["2", "²", "10"], ["10", "2", "²"]),
    ],
)
def test_classes_are_in_the_order_of_numbers_where_all_are(folder: Path, labels: list[str], classes: list[str]) -> None:
    lines = [line | {"split": "train"} for line in table(folder)]
    for index, line in enumerate(lines):
        line["label"] = labels[index % len(labels)]
    assert split(write_csv(folder / "mine.csv", lines)).classes == classes
