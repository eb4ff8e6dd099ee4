"""Images that files list or hold, as a tree: masks are made again for those that have changed since."""

import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from bgsweep.config import MaskFormat
from bgsweep.data.datasets import formats
from bgsweep.data.datasets.file_sets import file_set
from bgsweep.masks.plan import make_plan
from bgsweep.storage.tree import open_tree
from bgsweep.workflows.import_masks import import_masks
from tests.forms import FORMS, rows
from tests.inputs import write_images

YEAR = 365 * 86_400


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images and masks, all a year old."""
    monkeypatch.setenv("BGSWEEP_CACHE", str(tmp_path / "cache"))
    formats._listing.cache_clear()
    write_images(tmp_path)
    aged(tmp_path)
    return tmp_path


def aged(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - YEAR,) * 2)


def recent(uri: str) -> set[str]:
    """Images that have changed within half a year, as a new process sees it."""
    formats._listing.cache_clear()
    return {name for name, stat in formats.open_images(uri).files().items() if stat.changed > time.time() - YEAR / 2}


def test_the_mask_of_an_image_that_a_csv_lists_is_made_again_after_the_image(folder: Path) -> None:
    uri, out = FORMS["csv"](folder), str(folder / "made")
    for row in rows(folder):
        mask = folder / "beside" / row.split / row.image.relative_to(folder).with_suffix(".png")
        mask.parent.mkdir(parents=True, exist_ok=True)
        mask.symlink_to(row.mask)

    def imported() -> int:
        formats._listing.cache_clear()
        made = import_masks(uri, str(folder / "beside"), out, MaskFormat())["made"]
        assert isinstance(made, int)
        return made

    assert [imported(), imported()] == [32, 0]
    changed = rows(folder)[0].image
    cv2.imwrite(str(changed), np.ascontiguousarray(cv2.imread(str(changed))[::-1]))
    (group,) = make_plan(formats.open_images(uri), open_tree(out)).missing  # of `masks make`
    assert any(name.endswith(changed.name) for name in group)
    assert [imported(), imported()] == [1, 0]


@pytest.mark.parametrize("form", ["tars in a folder", "arrow", "parquet"])
def test_images_in_a_file_have_changed_when_the_file_has(folder: Path, form: str) -> None:
    uri = FORMS[form](folder)
    aged(folder)
    assert recent(uri) == recent(uri) == set(), "also where images are copied into the cache, and the copy is opened"
    files = file_set(uri)
    assert files is not None
    split, file = files.files[0]
    os.utime(file)
    found = recent(uri)
    assert found and (form == "parquet" or all(name.startswith(f"{split}/") for name in found))
