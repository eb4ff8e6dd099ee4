"""The paired bootstrap against the normal approximation, a slow loop, and cases whose answer is known."""

import math
from dataclasses import astuple

import numpy as np
import pytest

from bgsweep.evaluation import bootstrap
from bgsweep.evaluation.bootstrap import agree, crossed, one_sample, paired, paired_seeds
from bgsweep.evaluation.evaluator import PerImageMetric, share


def test_the_interval_is_that_of_the_normal_approximation() -> None:
    draws = np.random.default_rng(0)
    first, second = draws.random(2000) < 0.6, draws.random(2000) < 0.65
    found = paired(share("a", first), share("a", second), 4000)
    change = second.astype(float) - first
    half = 1.96 * change.std() / np.sqrt(len(change))
    assert found.value == pytest.approx(change.mean())
    assert found.lower == pytest.approx(change.mean() - half, abs=0.1 * half)
    assert found.upper == pytest.approx(change.mean() + half, abs=0.1 * half)


def test_pairing_makes_a_small_difference_sure() -> None:
    draws = np.random.default_rng(1)
    first = draws.random(1000) < 0.5
    second = first.copy()
    second[np.flatnonzero(~first)[:12]] = True  # twelve images more, and no other changed
    assert paired(share("a", first), share("a", second), 2000).significant
    unpaired = draws.permutation(second)
    assert not paired(share("a", first), share("a", unpaired), 2000).significant


@pytest.mark.parametrize(("count", "right"), [(2, 0.0), (2, 1.0), (100, 0.0), (100, 0.3), (100, 1.0), (5000, 0.5)])
def test_models_that_agree_on_all_images_differ_by_less_than_three_in_their_number(count: int, right: float) -> None:
    """As the rule of three has it (exactly: 1 - .05^(1/n))."""
    same = share("a", np.arange(count) < right * count)
    assert agree(same, same)
    found = paired(same, same, 4000)
    assert found.value == 0 and not found.significant
    for bound in (-found.lower, found.upper):
        assert bound == pytest.approx(3 / count, rel=0.35) if count > 2 else 0.3 < bound <= 1


@pytest.mark.parametrize(("repeats", "scale"), [(4, 1.0), (1, 2.5)])
def test_agreement_on_several_images_and_on_values_beyond_one_has_a_bound_too(repeats: int, scale: float) -> None:
    once = share("a", np.arange(200) < 60)
    plain = paired(once, once, 4000)
    many = PerImageMetric("a", scale * repeats * once.hits, repeats * once.counted)
    found = paired(many, many, 4000)
    assert found.upper == pytest.approx(scale * plain.upper, rel=0.01)


@pytest.mark.parametrize("count", [60, 200, 2000])
def test_few_images_that_differ_are_as_sure_as_the_exact_test_has_it(count: int) -> None:
    """McNemar's exact p for 3, 4, 5 images that only the second gets right is .25, .125, .062; for 7 it is .016."""
    first = np.zeros(count, bool)
    for differing, sure in ((3, False), (4, False), (5, False), (7, True)):
        second = np.arange(count) < differing
        assert paired(share("a", first), share("a", second), 4000).significant == sure


def test_ratios_are_taken_anew_in_every_resampling() -> None:
    draws = np.random.default_rng(3)
    hits, counted = [], []
    for chance in (0.3, 0.6):
        counts = (draws.random(400) < 0.5).astype(float)
        hits.append(counts * (draws.random(400) < chance))
        counted.append(counts)
    first, second = (PerImageMetric("shape_bias", hits[n], counted[n]) for n in (0, 1))
    found = paired(first, second, 4000, seed=7)
    generator, values = np.random.default_rng(8), []
    for _ in range(4000):
        rows = generator.integers(0, 400, 400)
        one, other = (sum(hits[n][rows]) / sum(counted[n][rows]) for n in (0, 1))
        values.append(other - one)
    assert (found.lower, found.upper) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=0.01)
    assert found.significant


def test_pictures_of_one_image_are_drawn_together() -> None:
    """Four variants of each image on which a model always does the same are no more evidence than one."""
    draws = np.random.default_rng(4)
    first, second = draws.random(300) < 0.5, draws.random(300) < 0.58
    names = np.array([f"image {number}" for number in draws.permutation(300)])
    once = paired(share("a", first), share("a", second), 4000)
    four = [share("a", np.repeat(hits, 4)) for hits in (first, second)]
    together = paired(*(one.by_image(np.repeat(names, 4)) for one in four), 4000)
    alone = paired(*four, 4000)
    assert together.value == pytest.approx(once.value) == pytest.approx(alone.value)
    width = once.upper - once.lower
    assert together.upper - together.lower == pytest.approx(width, rel=0.05)
    assert alone.upper - alone.lower == pytest.approx(width / 2, rel=0.1)


def test_the_interval_does_not_depend_on_how_much_is_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(5)
    first, second = (PerImageMetric("mce", draws.random(500) + shift, np.ones(500)) for shift in (0, 0.1))
    whole = paired(first, second, 1000)
    change = second.hits - first.hits
    assert whole.upper - whole.lower == pytest.approx(2 * 1.96 * change.std() / np.sqrt(500), rel=0.1)
    monkeypatch.setattr(bootstrap, "_DRAWS", 7 * 500)
    assert astuple(paired(first, second, 1000)) == pytest.approx(astuple(whole))


def test_an_images_pictures_are_added_up() -> None:
    value = PerImageMetric("a", np.array([1.0, 0, 1, 1, 0]), np.array([1.0, 1, 1, 0, 1]))
    found = value.by_image(np.array(["b", "a", "b", "c", "a"]))
    assert found.hits.tolist() == [0, 2, 1] and found.counted.tolist() == [2, 2, 0]
    assert found.value == value.value


def test_paired_differences_have_students_intervals() -> None:
    """Differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t(0.975, 2) = 4.3027."""
    found = paired_seeds([10.0, 20.0, 30.0], [11.0, 22.0, 33.0])
    assert (found.value, found.lower, found.upper) == pytest.approx((2.0, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    assert not found.significant


@pytest.mark.parametrize("changes", [[0.04], [0.04, 0.04], [0.03, 0.05], [0.0, 0.0, 0.0], [0.04, 0.04, 0.04]])
def test_seeds_that_do_not_tell_their_spread_have_no_interval_without_the_images(changes: list[float]) -> None:
    first = [0.5] * len(changes)
    second = [0.5 + change for change in changes]
    alone = paired_seeds(first, second)
    assert np.isnan(alone.lower) and np.isnan(alone.upper) and not alone.significant
    value = sum(changes) / len(changes)
    whole = paired_seeds(first, second, (value - 0.06, value + 0.07))
    assert whole.lower <= value - 0.06 + 1e-9 and whole.upper >= value + 0.07 - 1e-9


def test_intervals_over_seeds_and_images_hold_the_truth_as_often_as_they_say() -> None:
    """Simulated studies with spread between seeds, between images and between both together."""
    draws, truth, held, width = np.random.default_rng(0), 0.05, 0, []
    for _ in range(400):
        seeds, images = draws.normal(0, 0.03, (5, 1)), draws.normal(0, 0.3, (1, 60))
        differences = truth + seeds + images + draws.normal(0, 0.5, (5, 60))
        found = crossed(np.zeros((5, 60)), differences)
        assert found.value == pytest.approx(differences.mean())
        held += found.lower <= truth <= found.upper
        width.append(found.upper - found.lower)
    assert 0.93 <= held / 400 <= 0.99
    spread = (0.03**2 / 5 + 0.3**2 / 60 + 0.5**2 / 300) ** 0.5
    assert 4 * spread < np.mean(width) < 5.5 * spread


def test_an_interval_over_seeds_and_images_where_one_of_them_has_no_spread() -> None:
    images = np.tile(np.random.default_rng(1).integers(-1, 2, 80).astype(float), (4, 1))
    alike = crossed(np.zeros((4, 80)), images)  # every seed gives the same: as uncertain as one seed is
    half = 1.99 * images[0].std(ddof=1) / 80**0.5
    assert alike.upper - alike.value == pytest.approx(half, rel=0.01)
    assert math.isnan(crossed(np.ones((4, 80)), np.ones((4, 80))).lower)


def test_the_interval_of_one_encoder_holds_its_share_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        found = one_sample(share("top1", draws.random(60) < 0.85), 1000)
        held += found.lower <= 0.85 <= found.upper
    assert 0.9 <= held / 200 <= 0.99
    every = one_sample(share("top1", np.ones(20)), 1000)
    assert every.value == 1 and 0.75 < every.lower < 0.95
    nothing = one_sample(share("gap", np.zeros(20)), 1000, signed=True)
    assert nothing.lower == pytest.approx(-nothing.upper, abs=0.05) and nothing.upper > 0
    gap = PerImageMetric("gap", np.array([1.0, 0, 0, -1, 0, 0, 1, 0]), np.ones(8))
    assert one_sample(gap, 1000).lower < 0 < one_sample(gap, 1000).upper
