"""Intervals, trends and importances against cases whose answers are known."""

import time

import numpy as np
import pytest

from bgsweep.config import Distribution
from bgsweep.report.statistics import (
    difference,
    enough_for_importance,
    fences,
    importance,
    trend,
    wilson,
)


def test_intervals_equal_published_examples() -> None:
    """Newcombe (1998): 56/70 against 48/80 is 0.2 [0.0524, 0.3339]; Wilson of 81/263 is [0.2553, 0.3662]."""
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    first, second = 48 / 80, 56 / 70
    found = difference(first, wilson(first, 80), second, wilson(second, 70))
    assert found == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert wilson(0.0, 20)[0] == 0 and wilson(1.0, 20)[1] == 1


@pytest.mark.parametrize("log", [False, True])
def test_a_trend_finds_the_curve_under_the_noise_and_knows_how_sure_it_is(log: bool) -> None:
    draws = np.random.default_rng(0)
    position = draws.uniform(-2, 0, 80)
    x = 10**position if log else position
    found = trend(x.tolist(), (position**2 + draws.normal(0, 0.3, 80)).tolist(), log)
    assert found is not None
    truth = (np.log10(found.x) if log else found.x) ** 2
    inside = (found.low <= truth) & (truth <= found.high)
    assert inside.mean() > 0.8
    assert 0.02 < np.mean(found.high - found.low) < 1.0, "the band is of the mean, not of the points"


def test_the_band_of_a_flat_trend_is_that_of_a_mean() -> None:
    draws = np.random.default_rng(1)
    widths, levels = [], []
    for _ in range(20):
        values = draws.normal(0.5, 0.1, 25)
        found = trend(draws.uniform(0, 1, 25).tolist(), values.tolist(), log=False)
        assert found is not None
        widths.append(np.median(found.high - found.low))
        levels.append(np.mean((found.low <= 0.5) & (found.high >= 0.5)))
    assert 0.8 * 2 * 1.96 * 0.1 / 5 < np.median(widths) < 2 * 2 * 1.96 * 0.1 / 5
    assert np.mean(levels) > 0.75


def test_no_trend_is_drawn_of_few_trials() -> None:
    assert trend([0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0], log=False) is None
    assert trend([0.5] * 30, list(range(30)), log=False) is None


def test_importance_is_where_the_effect_is() -> None:
    draws = np.random.default_rng(0)
    space = {
        "matters": Distribution(uniform=(0, 1)),
        "does not": Distribution(loguniform=(0.01, 1)),
        "nor this": Distribution(choice=("a", (1, 2))),
    }
    points = [
        {"matters": draws.uniform(), "does not": 10 ** draws.uniform(-2, 0), "nor this": ("a", (1, 2))[index % 2]}
        for index in range(40)
    ]
    found = importance(space, points, [[point["matters"] + draws.normal(0, 0.05)] for point in points])
    assert found["matters"][0] > 0.8 and sum(value for value, _ in found.values()) <= 1
    assert all(low <= value <= high for value, (low, high) in found.values())


def test_nothing_matters_where_all_trials_are_alike() -> None:
    space = {"rate": Distribution(uniform=(0.0, 1.0)), "fill": Distribution(choice=("gray", "mean"))}
    points = [{"rate": index / 20, "fill": ("gray", "mean")[index % 2]} for index in range(20)]
    found = importance(space, points, [[0.5]] * 20)
    assert found == dict.fromkeys(space, (0.0, (0.0, 0.0)))


def test_importance_wants_more_trials_for_more_parameters() -> None:
    assert enough_for_importance(6, 4) == 14
    assert enough_for_importance(20, 4) == 0
    assert enough_for_importance(20, 8) == 20


def test_an_outlier_lies_outside_the_fences() -> None:
    assert fences([0.4, 0.41, 0.42, 0.43, 0.44, -3.0]) == (0.4, 0.44)


def test_a_trend_of_thousands_of_points_is_that_of_a_sample() -> None:
    generator = np.random.default_rng(1)
    x = generator.uniform(0, 1, 3000)
    y = np.sin(3 * x) + generator.normal(0, 0.1, 3000)
    began = time.process_time()
    found = trend(x.tolist(), y.tolist(), log=False)
    assert time.process_time() - began < 20, "with all points it is minutes"
    assert found is not None and np.abs(found.mean - np.sin(3 * found.x)).max() < 0.1
