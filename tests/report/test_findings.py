"""Findings of sweeps whose values are written in more than one form."""

import random
from dataclasses import replace
from typing import Any

import pytest

from bgsweep.config import resolve
from bgsweep.report import charts
from bgsweep.report.findings import findings, unconditional
from bgsweep.report.history import Trial
from bgsweep.report.page import SweepResults, page


def test_a_schedule_whose_course_is_filled_in_counts_as_the_option_that_leaves_it_out() -> None:
    """The baseline and points have the experiment's own value, in which it is filled in."""
    falling = {"from": 0.4, "to": 0.0}
    config = resolve({"space": {"background.random": {"choice": [falling, 0.2]}}, "search": {"metric": "knn_top1"}})
    draw = random.Random(0)
    trials = [
        Trial(
            f"t{number:02d}",
            {"background.random": ({**falling, "course": "linear"}, falling, 0.2)[number % 3]},
            None,
            "completed",
            curve={200: {"knn_top1": draw.random()}},
        )
        for number in range(30)
    ]
    found = findings(config, trials)
    assert found.importance["knn_top1"]["background.random"][0] > 0
    assert "nothing can be told" in found.sentences("knn_top1")[0]


@pytest.mark.parametrize(
    "space",
    [
        {"background.random": {"uniform": [0.1, 0.5]}},
        {"background.random.from": {"uniform": [0.1, 0.5]}, "background.random.to": {"uniform": [0.0, 0.5]}},
    ],
)
def test_a_baseline_outside_of_the_space_is_left_out_of_what_compares_its_values(space: dict[str, Any]) -> None:
    config = resolve({"space": space, "search": {"metric": "knn_top1"}})
    draw = random.Random(0)
    trials = [
        Trial(
            f"t{number:02d}",
            {key: draw.uniform(0.1, 0.5) for key in space} if number else {"background.random": 0.0},
            None if number else "baseline",
            "completed",
            curve={200: {"knn_top1": draw.random()}},
        )
        for number in range(40)
    ]
    found = findings(config, trials)
    assert found.count == 39 and found.importance["knn_top1"].keys() == space.keys()
    drawn = charts.parallel(unconditional(config), trials, found.measures)
    assert len(drawn["data"][0]["dimensions"]) == len(space) + 1


def test_the_page_of_a_baseline_outside_of_the_space_alone_has_nothing_to_compare(small: SweepResults) -> None:
    tree = {**small.manifest["file"], "space": {"background.random.from": {"uniform": [0.1, 0.5]}}}
    manifest = {key: value for key, value in small.manifest.items() if key != "result"} | {"file": tree}
    alone = replace(small.trials[0], params={"background.random": 0.0})
    html = page(replace(small, manifest=manifest, trials=[alone], tags={}, datasets=[]))
    assert "No trial with values of the space" in html and "nothing to compare" in html
