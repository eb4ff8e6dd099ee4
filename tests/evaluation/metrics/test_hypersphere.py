"""Alignment and uniformity against the paper's sums written out, and their limits."""

import math

import numpy as np
import pytest

from bgsweep.evaluation.metrics.hypersphere import alignment, uniformity
from tests.evaluation.metrics.clouds import cloud, turned


def length_one(features: np.ndarray) -> np.ndarray:
    return np.array([row / math.sqrt((row**2).sum()) for row in features])


def test_they_are_the_papers_formulas() -> None:
    first, second = cloud(40, 6) + 0.5, cloud(40, 6, seed=1)
    one, other = length_one(first), length_one(second)
    apart = [((a - b) ** 2).sum() for a, b in zip(one, other, strict=True)]
    assert alignment(first, second) == pytest.approx((np.mean(apart), np.std(apart, ddof=1) / math.sqrt(40)))
    pairs = [math.exp(-2 * ((one[i] - one[j]) ** 2).sum()) for i in range(40) for j in range(40) if i != j]
    assert uniformity(first)[0] == pytest.approx(math.log(np.mean(pairs)))


def test_the_error_is_that_of_leaving_groups_out() -> None:
    features = cloud(43, 6) + 0.5
    left = [uniformity(np.delete(features, np.s_[group::10], axis=0))[0] for group in range(10)]
    told = math.sqrt(9 / 10 * sum((value - np.mean(left)) ** 2 for value in left))
    assert uniformity(features)[1] == pytest.approx(told)


def test_limits() -> None:
    features = cloud(2000, 3)
    assert alignment(features, features)[0] == 0 and alignment(features, -features)[0] == pytest.approx(4)
    assert uniformity(np.ones((30, 4)))[0] == pytest.approx(0, abs=1e-9)
    # On the sphere in three dimensions |x - y|^2 / 4 is uniform: the mean of exp(-8 u) is (1 - exp(-8)) / 8.
    assert uniformity(features)[0] == pytest.approx(math.log((1 - math.exp(-8)) / 8), abs=0.01)
    assert np.isfinite(uniformity(np.zeros((6, 4)))[0])


def test_neither_scale_nor_rotation_matters() -> None:
    first, second = cloud(40, 6), cloud(40, 6, seed=1)
    both = turned(np.stack([first, second])) * 5
    assert alignment(*both)[0] == pytest.approx(alignment(first, second)[0])
    assert uniformity(both[0])[0] == pytest.approx(uniformity(first)[0])
