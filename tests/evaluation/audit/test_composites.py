"""Foregrounds before backgrounds: shares of known encoders, and intervals of what is made of two crossed samples."""

import numpy as np
import pytest

from bgsweep.evaluation.audit import composites
from bgsweep.evaluation.audit.subject import Subject


def test_shares_of_encoders_that_see_one_part_alone(subjects: dict[str, Subject]) -> None:
    area = (13 / 32) ** 2  # of the foreground, without the rim, whose colours vary as the background's
    texture = (1 - area) ** 2 / ((1 - area) ** 2 + area**2)
    for encoder, value in {"background": 1, "centre": 0, "foreground": 0, "texture": texture}.items():
        found = {one.name: one.value for one in composites.composites(subjects[encoder]).values}
        assert found["bg_share"] == pytest.approx(value, abs=0.02)
        assert found["fg_share"] == pytest.approx(1 - value, abs=0.02)
        assert found["challenge"] == (value < 0.5)


def test_the_parts_of_a_value_vary_as_two_crossed_samples() -> None:
    draws = np.random.default_rng(0)
    fronts, behind = 40, 25
    features = draws.normal(size=(fronts, 1, 1)) * 3 + draws.normal(size=(1, behind, 1))
    value = composites.with_errors(features, lambda given: float(given.mean()), "mean")
    assert value.value == pytest.approx(features.mean())
    variance = value.hits.var() / len(value.hits)
    expected = features.mean(axis=1).var() / (fronts - 1) + features.mean(axis=0).var() / (behind - 1)
    assert variance == pytest.approx(expected, rel=0.1)
