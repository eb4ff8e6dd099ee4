"""The page as a browser shows it, and what it says where there is little to say."""

import html
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bgsweep.config import resolve
from bgsweep.report.page import SweepResults, page


@pytest.fixture(scope="module")
def of_200(large: SweepResults) -> str:
    began = time.process_time()
    html = page(large)
    assert time.process_time() - began < 60
    return html


@pytest.mark.slow
def test_filter_and_hover_work_on_200_trials(look: Callable[..., Any], of_200: str) -> None:
    view = look(of_200, viewport={"width": 1200, "height": 900})
    assert view.locator(".figure .main-svg").count() >= 10
    lines = "document.querySelector('[data-figure=parallel]').data[0].line.color.length"
    assert view.evaluate(lines) == 200
    view.locator("#top").fill("7")
    assert view.locator("#top-shown").inner_text() == "7 of 200"
    view.wait_for_function(f"{lines} === 7")

    front = view.locator('[data-figure="front"]')
    front.scroll_into_view_if_needed()
    mark = front.locator(".points path").first.bounding_box()
    view.mouse.move(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    view.wait_for_selector('[data-figure="front"] .hoverlayer .hovertext')
    assert "background.remove" in front.locator(".hoverlayer").text_content()

    place = view.locator('[data-figure="parallel"]')
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    found = ""
    for step in range(330):  # somewhere down the plot lies a line
        view.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 60 + step)
        found = view.locator("#hovered").inner_text().strip()
        if found:
            break
    assert re.match(r"t\d+ \(completed, epoch 32\): background.remove", found)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_telephone_and_follows_light_and_dark(
    look: Callable[..., Any], small: SweepResults, scheme: str
) -> None:
    view = look(page(small), viewport={"width": 390, "height": 800}, color_scheme=scheme)
    assert view.evaluate("document.documentElement.scrollWidth") <= 390
    ink = view.evaluate("getComputedStyle(document.querySelector('[data-figure=curves] .xtick text')).fill")
    assert (sum(map(int, re.findall(r"\d+", ink)[:3])) > 380) == (scheme == "dark")


def test_few_trials_get_no_importance_and_no_trend(small: SweepResults) -> None:
    html = page(small)
    assert "6 trials are too few to estimate which of 3 parameters matters" in html
    assert "With fewer than 10 trials no trend is drawn" in html
    assert 'data-figure="importance' not in html
    assert "champion classifies 45.0 % correctly" in html


@pytest.mark.slow
def test_effects_stand_on_the_page_in_words_and_are_plain_values(of_200: str, large: SweepResults) -> None:
    found = re.search(r"<li>Between 0.32 and 0.48 of background.remove ([^<]*)</li>", of_200)
    assert found and "higher by" in found.group(1) + of_200
    assert "Of background.fill nothing can be told (95 %): BG-Gap differs by no more than the noise" in of_200
    told = json.loads(json.dumps(large.findings().public(), allow_nan=False))
    assert told["importance"]["bg_gap"]["background.remove"]["interval"][0] > 0.5
    assert told["effects"]["bg_gap"]["optimizer.lr"]["changes"] == []
    assert html.escape(told["sentences"]["bg_gap"][0]) in of_200


def test_numbers_and_words_that_were_tried_have_a_figure_each(small: SweepResults) -> None:
    html = page(small)
    for key in ("background.remove", "background.fill", "optimizer.lr"):
        assert f'data-figure="against {key}"' in html


def test_champion_and_baseline_have_intervals_over_the_images(small: SweepResults) -> None:
    html = page(small)
    assert "95 % intervals over 198 images" in html  # two of 200 have too small a foreground
    assert re.search(r"<strong>\+10.0</strong></td><td>\[\+0\.\d, \+19\.\d\]", html)
    assert html.count("data:image/jpeg;base64") == 8 * 3 + 1


def test_several_seeds_have_a_table_of_their_own(small: SweepResults) -> None:
    """Differences of 4 and 6 points: mean 5, standard error 1, t(0.975, 1) = 12.7."""
    result = small.manifest["result"]
    ours, theirs = ({"mean": m, "se": 0.01, "values": v} for m, v in ((0.59, [0.58, 0.6]), (0.54, [0.54, 0.54])))
    several = {"best": result["best"] | {"seeds": {"knn_top1": ours}}}
    several["baseline"] = result["baseline"] | {"seeds": {"knn_top1": theirs}}
    html = page(replace(small, manifest={**small.manifest, "result": result | several}))
    assert "Over 2 seeds" in html and "Over 2 seeds" not in page(small)
    assert "<td>test/knn/top1</td><td>59.0 ± 1.0</td>" in html
    # Student's half width is 12.7; that of 200 images, as if they were not the same ones, is 9.7.
    assert re.search(r"<strong>\+5.0</strong></td><td>\[-1[01]\.\d, \+2[01]\.\d\]</td>", html)
    assert "widened by the uncertainty from the test images" in html


def test_values_that_are_no_shares_are_shown_as_they_are(small: SweepResults) -> None:
    """Of a sweep without classes, by a metric of which less is better."""
    manifest = {**small.manifest, "budget": {"gpus": 2.0}}
    del manifest["result"]
    tree = manifest["file"] = {**manifest["file"], "search": {**manifest["file"]["search"]}}
    tree["search"] |= {"metric": "alpha_req", "mode": "min"}
    name = resolve(dict(tree)).search.metrics[0]
    trials = [replace(one, curve={epoch: {name: 28.123} for epoch in one.curve}) for one in small.trials]
    html = page(replace(small, manifest=manifest, trials=trials))
    assert (
        re.findall(r"<th>epochs</th><th>([^<]*)</th>", html) == ["alpha_req/distance"]
        and "<td>28.12</td>" in html
        and "2812" not in html
    )
    assert "GPU hours" in html and "GPU hours" not in page(small), "the cluster's, whatever the file leaves open"


def test_words_from_outside_cannot_break_the_page(small: SweepResults) -> None:
    html = page(small)
    assert "sample </script>" not in html and "sample &lt;/script&gt;" in html
    assert "somebody" not in html, "a user's name is nobody's business"


def test_a_sweep_that_has_not_ended_has_a_page_too(small: SweepResults, tmp_path: Path) -> None:
    manifest = {key: value for key, value in small.manifest.items() if key != "result"}
    running = replace(small, manifest=manifest, trials=[small.trials[-1]], tags={}, datasets=[])
    assert "The sweep has not ended" in page(running)
    assert "no trial" not in page(running)
    assert "nothing to compare" in page(replace(running, trials=[]))


def test_images_that_are_elsewhere_are_left_out_and_that_is_said(small: SweepResults) -> None:
    data = {"images": "/elsewhere", "masks": "/elsewhere"}
    file = small.manifest["file"]
    tree = file | {"experiment": file["experiment"] | {"data": file["experiment"]["data"] | data}}
    html = page(replace(small, manifest={**small.manifest, "file": tree}))
    assert "The images cannot be read on the machine that made this page" in html
    assert "data:image/jpeg" not in html and 'data-figure="backgrounds"' in html
