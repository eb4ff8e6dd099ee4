"""Order by fronts and the hypervolume, against slow definitions; successive halving by two metrics."""

import itertools
import math
import random
from collections.abc import Sequence

import numpy as np
import pytest

from bgsweep.config import resolve
from bgsweep.errors import UserError
from bgsweep.report.dominance import ranks
from bgsweep.sweep.fronts import FrontHalving, best_first, by_epsilon_net, crowding, hypervolume

Point = tuple[float, ...]


def drawn(seed: int, count: int, values: int, whole: bool = False) -> list[Point]:
    draw = random.Random(seed)
    return [tuple(draw.randrange(4) if whole else draw.random() for _ in range(values)) for _ in range(count)]


@pytest.mark.parametrize(("seed", "values", "whole"), list(itertools.product(range(4), (1, 2, 3), (False, True))))
def test_the_order_goes_by_fronts(seed: int, values: int, whole: bool) -> None:
    points = drawn(seed, 25, values, whole)
    fronts = ranks(points)
    assert [fronts[index] for index in best_first(points)] == sorted(fronts)


def test_crowding_is_the_sum_of_the_neighbours_distances() -> None:
    front = [(0.0, 10.0), (4.0, 4.0), (1.0, 7.0), (10.0, 0.0)]
    found = crowding(np.array(front))
    assert found[0] == found[3] == math.inf
    assert found[1] == pytest.approx((10 - 1) / 10 + (7 - 0) / 10)
    assert found[2] == pytest.approx((4 - 0) / 10 + (10 - 4) / 10)
    assert best_first(front) == [0, 3, 1, 2]
    assert crowding(np.array([(1.0, 1.0), (1.0, 1.0), (1.0, 1.0)]))[1] == 0, "equal points have no distance"


def test_an_epsilon_net_takes_the_farthest_next() -> None:
    front = [(0.0, 10.0), (9.0, 1.0), (5.0, 5.0), (10.0, 0.0), (1.0, 9.0)]
    order = by_epsilon_net(np.array(front))
    chosen = [order[0]]
    for _ in front[1:]:
        rest = [one for one in range(5) if one not in chosen]
        chosen.append(max(rest, key=lambda one: min(math.dist(front[one], front[each]) for each in chosen)))
    assert order == chosen and order[:3] == [3, 0, 2]


@pytest.mark.parametrize(("seed", "values"), list(itertools.product(range(3), (1, 2, 3))))
def test_the_hypervolume_is_that_of_the_boxes(seed: int, values: int) -> None:
    """By inclusion and exclusion over all subsets of points."""
    points = [tuple(5 * each for each in point) for point in drawn(seed, 7, values)]
    reference = tuple([1.0] * values)

    def box(corner: Sequence[float]) -> float:
        return math.prod(max(0.0, each - low) for each, low in zip(corner, reference, strict=True))

    expected = sum(
        (-1) ** (size + 1) * sum(box([min(each) for each in zip(*some, strict=True)]) for some in chosen)
        for size in range(1, 8)
        for chosen in [itertools.combinations(points, size)]
    )
    assert hypervolume(points, reference) == pytest.approx(expected)
    assert hypervolume([], reference) == hypervolume([(0.5,) * values], reference) == 0


def test_a_trial_goes_on_if_few_are_better_at_its_rung() -> None:
    halving = FrontHalving(2, 18, 3, "crowding")
    assert not halving.stops("t0", 1, (0, 0)), "before the first rung"
    assert not halving.stops("t0", 2, (1, 1))
    assert halving.stops("t1", 2, (0, 0)), "dominated"
    assert not halving.stops("t2", 3, (2, 2)), "of three trials one goes on"
    assert not halving.stops("t1", 4, (0, 0)), "decided once"
    assert not halving.stops("t1", 6, (0, 0)), "the first at the next rung"


def test_several_metrics_have_asha_and_its_spread_but_no_other_scheduler() -> None:
    two = {"metric": ["knn_top1", "bg_gap"]}
    assert resolve({"search": two}).search.scheduler == "asha"
    with pytest.raises(UserError, match="set scheduler: asha or none"):
        resolve({"search": {**two, "scheduler": "median"}})
    with pytest.raises(UserError, match=r"scheduler_options\.spread"):
        resolve({"search": {**two, "scheduler_options": {"spread": "even"}}})
    with pytest.raises(UserError, match="scheduler_options: asha has none"):
        resolve({"search": {"scheduler_options": {"spread": "crowding"}}})
