"""LiDAR against the paper's matrices written out, and its limits."""

import math

import numpy as np
import pytest
from scipy.linalg import sqrtm

from bgsweep.evaluation.metrics.lidar import discriminant_rank
from tests.evaluation.metrics.clouds import cloud, turned


def slow(features: np.ndarray) -> float:
    classes, members, width = features.shape
    grand = features.reshape(-1, width).mean(axis=0)
    between, within = np.zeros((width, width)), np.zeros((width, width))
    for one in features:
        mean = one.mean(axis=0)
        between += np.outer(mean - grand, mean - grand) / classes
        for member in one:
            within += np.outer(member - mean, member - mean) / (classes * members)
    scale = np.trace(between + within) / width
    root = np.linalg.inv(sqrtm(within / scale + 1e-4 * np.eye(width)).real)
    eigenvalues = np.linalg.eigvalsh(root @ between @ root / scale).clip(min=0)
    shares = [value / eigenvalues.sum() + 1e-7 for value in eigenvalues]
    return math.exp(-sum(share * math.log(share) for share in shares))


def images_with_views(classes: int, members: int, width: int, noise: float) -> np.ndarray:
    return cloud(classes, 1, width) * np.linspace(0.3, 2, width) + noise * cloud(classes, members, width, seed=1)


@pytest.mark.parametrize(("classes", "width"), [(30, 8), (6, 20)])
def test_it_is_the_papers_formula(classes: int, width: int) -> None:
    features = images_with_views(classes, 5, width, 0.5)
    assert discriminant_rank(features) == pytest.approx(slow(features), rel=1e-4)


def test_limits() -> None:
    perfect = np.repeat(np.eye(9)[:, None], 4, axis=1)
    assert discriminant_rank(perfect) == pytest.approx(8, rel=1e-4), "as many directions as nine points span"
    one_direction = images_with_views(40, 4, 1, 0.1) @ cloud(1, 12) + 1e-4 * cloud(40, 4, 12, seed=3)
    assert discriminant_rank(one_direction) < 1.2
    assert discriminant_rank(np.ones((5, 4, 3))) == 1


def test_views_that_are_told_apart_by_nothing_have_less_of_it_than_those_of_one_image() -> None:
    clear = images_with_views(40, 6, 12, 0.1)
    grouped_wrongly = clear.reshape(6, 40, 12).transpose(1, 0, 2)
    assert abs(discriminant_rank(clear) - discriminant_rank(grouped_wrongly)) > 0.5


def test_neither_scale_nor_rotation_matters() -> None:
    features = images_with_views(30, 5, 8, 0.5)
    for scale in (1e-3, 1e3):
        assert discriminant_rank(turned(features) * scale) == pytest.approx(discriminant_rank(features))
