"""Sentences on parameters, against made sweeps of which the truth is known."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bgsweep.config import Distribution
from bgsweep.report import effects
from bgsweep.report.effects import effect, sentence

SPACE = {
    "background.random": Distribution(uniform=(0.0, 0.5)),
    "background.remove": Distribution(choice=(0.0, 0.15, 0.3, 0.45)),
    "optimizer.lr": Distribution(loguniform=(0.01, 0.3)),
    "method.name": Distribution(choice=("moco_v2", "simclr", "vicreg")),
}
Point = dict[str, Any]


def made(
    seed: int, count: int, truth: Callable[[Point], float], noise: str = "normal"
) -> tuple[list[Point], list[float]]:
    """Trials with drawn values, and their metric: the truth, an effect of the method, and noise of 1.5 points."""
    draw = np.random.default_rng(seed)
    points: list[Point] = [
        {
            "background.random": float(0.5 * (draw.beta(4, 2) if noise == "clustered" else draw.uniform())),
            "background.remove": float(draw.choice([0, 0.15, 0.3, 0.45])),
            "optimizer.lr": float(np.exp(draw.uniform(*np.log([0.01, 0.3])))),
            "method.name": str(draw.choice(["moco_v2", "simclr", "vicreg"])),
        }
        for _ in range(count)
    ]
    errors = 0.015 * (draw.standard_t(3, count) if noise == "t" else draw.normal(size=count))
    if noise == "uneven":
        errors *= [0.5 + 3 * point["background.random"] for point in points]
    level = [0.4 + truth(point) + 0.05 * (point["method.name"] == "simclr") for point in points]
    return points, (np.array(level) + errors).tolist()


def falls(point: Point) -> float:
    return -0.04 * (point["background.random"] > 0.3)


def told(key: str, seed: int, count: int, truth: Callable[[Point], float], noise: str = "normal") -> bool:
    found = effect(key, SPACE, *made(seed, count, truth, noise))
    return found is not None and bool(found.changes)


def test_a_plateau_and_a_fall_are_told_and_a_parameter_without_effect_is_not() -> None:
    points, values = made(0, 60, falls)
    found = effect("background.random", SPACE, points, values)
    assert found is not None and found.best == "between 0 and 0.3" and not found.single
    (change,) = found.changes
    assert change.where == "above 0.3" and change.interval[0] < -0.04 < change.interval[1] < 0
    assert sentence("background.random", "knn_top1", found, share=True) == (
        "Between 0 and 0.3 of background.random no difference of knn_top1 can be told (95 %); above 0.3 it is lower by "
        "3.6 points [2.2, 5.1]."
    )
    other = effect("optimizer.lr", SPACE, points, values)
    assert other is not None and other.changes == ()
    assert sentence("optimizer.lr", "knn_top1", other, share=True).startswith(
        "Of optimizer.lr nothing can be told (95 %)"
    )


def test_where_lower_is_better_the_best_are_the_lowest() -> None:
    points, values = made(0, 60, falls)
    found = effect("background.random", SPACE, points, values, sign=-1)
    assert found is not None and found.best == "between 0.3 and 0.5"
    assert found.changes[0].where == "below 0.3" and found.changes[0].value > 0


def test_options_are_compared_with_the_best() -> None:
    found = effect("method.name", SPACE, *made(0, 60, falls))
    assert found is not None and found.single and found.best == "with simclr"
    assert {each.where for each in found.changes} == {"with moco_v2", "with vicreg"}
    numbers = effect("background.remove", SPACE, *made(0, 60, lambda point: -0.05 * (point["background.remove"] > 0.2)))
    assert (
        numbers is not None and numbers.best == "between 0 and 0.15" and numbers.changes[0].where == "at 0.3 and more"
    )


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (0.0312, "0.031"), (16, "16"), (128, "128"), (4096.0, "4096")])
def test_numbers_are_written_as_in_the_file(value: float, text: str) -> None:
    assert effects._number(value) == text


def test_another_parameters_effect_is_taken_out() -> None:
    """All the difference is the method's, which was mostly tried with high values of the other."""
    draw = np.random.default_rng(0)
    points, values = made(0, 80, lambda point: 0.0)
    for index, point in enumerate(points):
        point["background.random"] = float(
            draw.uniform(*((0.2, 0.5) if point["method.name"] == "simclr" else (0, 0.3)))
        )
        values[index] += 0.1 * (point["method.name"] == "simclr")
    found = effect("background.random", SPACE, points, values)
    assert found is not None and found.changes == ()


def test_too_few_trials_and_parameters_changed_together_tell_nothing() -> None:
    points, values = made(0, 19, falls)
    assert effect("background.random", SPACE, points, values) is None
    points, values = made(0, 60, falls)
    for point in points:
        point["method.name"] = "simclr" if point["background.random"] > 0.3 else "moco_v2"
    space = {key: SPACE[key] for key in ("method.name", "background.remove")}
    space["background.random"] = Distribution(choice=(0.1, 0.4))
    both = [point | {"background.random": 0.4 if point["background.random"] > 0.3 else 0.1} for point in points]
    found = effect("background.random", space, both, values)
    assert found is not None and found.changes == () and found.most is None
    assert "not changed apart" in sentence("background.random", "knn_top1", found, share=True)


def test_trials_outside_the_space_are_left_out() -> None:
    points, values = made(0, 60, falls)
    whole = effect("background.random", SPACE, points, values)
    assert effect("background.random", SPACE, [*points, {"background.random": 0.9}], [*values, 9.0]) == whole


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["normal", "t", "uneven", "clustered"])
@pytest.mark.parametrize("count", [24, 60])
def test_without_an_effect_nothing_is_told_in_93_of_100_sweeps(count: int, noise: str) -> None:
    sweeps = 300
    for key in ("background.random", "background.remove"):
        wrong = sum(told(key, seed, count, lambda point: 0.0, noise) for seed in range(sweeps))
        assert wrong <= 0.07 * sweeps, (key, wrong)


@pytest.mark.slow
def test_intervals_contain_the_truth() -> None:
    found = [effect("background.random", SPACE, *made(seed, 60, falls)) for seed in range(100)]
    changes = [change for one in found if one for change in one.changes]
    assert len(changes) >= 90
    held = [change.interval[0] <= -0.04 <= change.interval[1] for change in changes if change.where == "above 0.3"]
    assert np.mean(held) >= 0.93
