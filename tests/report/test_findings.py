"""Findings of sweeps whose values are written in more than one form."""

import random

from bgsweep.config import resolve
from bgsweep.report.findings import findings
from bgsweep.report.history import Trial


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
