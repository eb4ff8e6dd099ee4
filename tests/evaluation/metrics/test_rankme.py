"""RankMe against the paper's formula written out, and its limits."""

import math

import numpy as np
import pytest

from bgsweep.evaluation.metrics.base import jackknife_error
from bgsweep.evaluation.metrics.rankme import effective_rank
from tests.evaluation.metrics.clouds import cloud, turned


def slow(features: np.ndarray) -> float:
    singular = np.linalg.svd(features, compute_uv=False)
    shares = [value / singular.sum() + 1e-7 for value in singular]
    return math.exp(-sum(share * math.log(share) for share in shares))


@pytest.mark.parametrize("shape", [(200, 12), (12, 40)])
def test_it_is_the_papers_formula(shape: tuple[int, int]) -> None:
    features = cloud(*shape) * np.linspace(0.2, 3, shape[1]) + 1
    assert effective_rank(features) == pytest.approx(slow(features), rel=1e-6)


def test_limits() -> None:
    assert effective_rank(np.tile(np.eye(12), (5, 1))) == pytest.approx(12, rel=1e-4)
    assert effective_rank(cloud(50, 1) @ cloud(1, 20)) == pytest.approx(1, abs=2e-3)
    assert effective_rank(cloud(4000, 12)) == pytest.approx(12, rel=0.01)
    assert effective_rank(np.zeros((20, 8))) == 1
    assert effective_rank(np.ones((20, 8))) == pytest.approx(1, abs=2e-3)


def test_neither_scale_nor_rotation_matters() -> None:
    features = cloud(100, 12) * np.linspace(0.2, 3, 12)
    assert effective_rank(turned(features) * 7) == pytest.approx(effective_rank(features))


def test_the_error_is_the_spread_over_samples() -> None:
    spread = np.std([effective_rank(cloud(200, 12, seed=seed) * np.linspace(0.2, 3, 12)) for seed in range(60)])
    features = [cloud(200, 12, seed=seed) * np.linspace(0.2, 3, 12) for seed in range(20)]
    told = np.mean([jackknife_error(lambda rows, each=each: effective_rank(each[rows]), 200) for each in features])
    assert 0.6 < told / spread < 1.6
    assert math.isnan(jackknife_error(lambda rows: 0.0, 1))
