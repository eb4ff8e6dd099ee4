"""Fronts of points against their definition."""

import itertools
import math
import random

import pytest

from bgsweep.report.dominance import front, ranks

Point = tuple[float, ...]


def beats(one: Point, other: Point) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("seed", "values", "whole", "missing"), list(itertools.product(range(4), (1, 2, 3), (False, True), (False, True)))
)
def test_fronts_are_those_of_the_definition(seed: int, values: int, whole: bool, missing: bool) -> None:
    draw = random.Random(seed)
    points = [tuple(draw.randrange(4) if whole else draw.random() for _ in range(values)) for _ in range(25)]
    if missing:
        points[::6] = [(math.nan, *point[1:]) for point in points[::6]]
    left, number, expected = set(range(25)), 0, [0] * 25
    while left:
        own = {one for one in left if not any(beats(points[other], points[one]) for other in left)}
        for one in own:
            expected[one] = number
        left, number = left - own, number + 1
    assert ranks(points) == expected
    assert front(points) == [index for index in range(25) if expected[index] == 0]


def test_no_points_have_no_front() -> None:
    assert ranks([]) == front([]) == []
