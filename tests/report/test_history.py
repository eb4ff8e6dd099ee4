"""The parts of a journal that the page shows."""

import pytest

from bgsweep.report.history import common_epoch, cost_of
from bgsweep.report.page import SweepResults


def test_each_trial_has_its_curve_and_its_fate(large: SweepResults) -> None:
    trials = large.trials
    assert [trial.id for trial in trials] == [f"t{number:02d}" for number in range(200)]
    assert {trial.status for trial in trials} == {"completed", "stopped"}
    assert list(trials[0].curve) == [8, 16, 24, 32] and list(trials[1].curve) == [8]
    assert trials[0].fixed == "baseline" and trials[0].last == trials[0].curve[32]


def test_trials_are_compared_where_half_of_them_came_to(large: SweepResults) -> None:
    trials = large.trials
    assert common_epoch(trials) == 8
    assert common_epoch([trial for trial in trials if trial.status == "completed"]) == 32
    assert common_epoch([]) is None


def test_stopping_saves_what_the_rest_would_have_taken_at_the_same_pace(large: SweepResults) -> None:
    trials = large.trials
    cost = cost_of(trials, large.wall_seconds, 32, (2.0, 0.0))
    assert cost.unit == "core hours"
    assert cost.spent["t00"] == pytest.approx(2 * 64 / 3600)
    assert cost.saved["t01"] == pytest.approx(2 * 48 / 3600) and "t00" not in cost.saved
    on_gpus = cost_of(trials, large.wall_seconds, 32, (8.0, 0.5))
    assert on_gpus.unit == "GPU hours" and on_gpus.spent["t00"] == pytest.approx(0.5 * 64 / 3600)
