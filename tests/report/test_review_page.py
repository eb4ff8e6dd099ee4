"""The page of `bgsweep masks review` in a browser, driven by keyboard and mouse."""

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bgsweep.data.datasets.bundled import ARCHIVE
from bgsweep.masks.marks import read_review
from bgsweep.report.review_page import thumbnail, thumbnail_side
from bgsweep.workflows.review_masks import review_masks

SAMPLE, COUNT = 4, 8


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images and masks, 24 of each."""
    folder = tmp_path_factory.mktemp("trees")
    with zipfile.ZipFile(ARCHIVE) as archive:
        names = sorted(name for name in archive.namelist() if re.match(r"images/train/.*\.jpg", name))
        for name in names[:: len(names) // 24][:24]:
            archive.extract(name, folder)
            archive.extract(name.replace("images/", "masks/").replace(".jpg", ".png"), folder)
    return folder


@pytest.fixture(scope="module")
def html(trees: Path) -> str:
    masks = str(trees / "masks")
    result = review_masks(str(trees / "images"), masks, trees / "review.html", COUNT, SAMPLE, second="none")
    assert (result["listed"], result["sampled"], result["images"]) == (COUNT, SAMPLE, 24)
    return (trees / "review.html").read_text(encoding="utf-8")


def downloaded(view: Any) -> dict[str, Any]:
    with view.expect_download() as begun:
        view.keyboard.press("d")
    assert begun.value.suggested_filename == "review.json"
    found: dict[str, Any] = json.loads(Path(begun.value.path()).read_text(encoding="utf-8"))
    return found


def test_masks_are_marked_by_keyboard(look: Callable[..., Any], html: str, tmp_path: Path) -> None:
    view = look(html, viewport={"width": 1200, "height": 800})
    for key in ("b", "g", "ArrowRight", "B", "ArrowLeft", "u", "g", "k", "k"):
        view.keyboard.press(key)
    found = downloaded(view)
    marks = [item["mark"] for item in found["items"]]
    assert marks[:5] == ["bad", "good", None, "good", None]
    view.keyboard.press("n")
    current = "[...document.querySelectorAll('.cards li')].findIndex(card => card.ariaCurrent === 'true')"
    assert view.evaluate(current) == 4
    (tmp_path / "review.json").write_text(json.dumps(found))
    review = read_review(tmp_path / "review.json")
    assert (review.pairs, [item.mark for item in review.items]) == (24, marks)
    assert [item.sampled for item in review.items[: SAMPLE + 1]] == [True] * SAMPLE + [False]


def test_the_random_sample_is_marked_without_knowing_the_suspicion(look: Callable[..., Any], html: str) -> None:
    view = look(html, viewport={"width": 1200, "height": 800})
    reasons = view.locator(".cards .below span").all_inner_texts()
    assert not any(reasons[:SAMPLE]) and all(reasons[SAMPLE:])


def test_marks_outlast_the_page_and_give_a_share_with_its_interval(look: Callable[..., Any], html: str) -> None:
    view = look(html, viewport={"width": 1200, "height": 800})
    for key in "bggg":
        view.keyboard.press(key)
    words = "Random sample: 4 of 4 marked; estimated: 25 % of all masks are bad (95 %: 5 % to 70 %)."
    assert words in view.locator("#progress").inner_text()
    view.reload()
    assert words in view.locator("#progress").inner_text()
    assert view.locator(".cards li[data-mark=bad]").count() == 1


def test_marks_are_set_by_mouse_and_undone(look: Callable[..., Any], html: str) -> None:
    view = look(html, viewport={"width": 1200, "height": 800})
    view.locator(".cards li").nth(5).locator("button.bad").click()
    assert view.locator(".cards li").nth(5).get_attribute("data-mark") == "bad"
    view.locator("#undo").click()
    assert view.locator(".cards li[data-mark]").count() == 0
    view.locator("#outline").click()
    assert not view.locator(".cards .edge").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_telephone_and_follows_light_and_dark(look: Callable[..., Any], html: str, scheme: str) -> None:
    view = look(html, viewport={"width": 390, "height": 800}, color_scheme=scheme)
    assert view.evaluate("document.documentElement.scrollWidth") <= 390
    paper = view.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) > 380) == (scheme == "light")


def test_a_page_of_hundreds_of_images_has_five_megabytes_at_most(shared_data: Path) -> None:
    images = sorted((shared_data / "cue_conflict").rglob("style-transfer-preprocessed-512/*/*.jpg"))[::40]
    speckled = np.random.default_rng(0).integers(0, 2, (224, 224)).astype(np.uint8) * 255
    for count in (60, 210, 400):
        side = thumbnail_side(count)
        drawn = [thumbnail(cv2.imread(str(path)), speckled, side) for path in images]
        assert len(json.dumps(drawn)) / len(drawn) * count < 5e6
