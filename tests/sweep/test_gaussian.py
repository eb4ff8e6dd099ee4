"""The Gaussian process against its closed form, and what it makes of trials whose noise is known."""

from typing import Literal

import numpy as np
import pytest
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from bgsweep.config import SweepConfig, resolve
from bgsweep.sweep.events import Learned
from bgsweep.sweep.searcher import VALUES, TuneSearcher
from bgsweep.sweep.searchers.gaussian import GaussianSearcher, expected_improvement, posterior


def matern(one: np.ndarray, other: np.ndarray, length: float) -> np.ndarray:
    apart = np.sqrt(5) * np.abs(one[:, None, 0] - other[None, :, 0]) / length
    found: np.ndarray = (1 + apart + apart**2 / 3) * np.exp(-apart)
    return found


def test_mean_and_deviation_are_those_of_the_closed_form() -> None:
    draw = np.random.default_rng(0)
    x, y, noise, wanted = draw.random((8, 1)), draw.normal(size=8), draw.random(8), draw.random((5, 1))
    kernel = ConstantKernel(1.3, "fixed") * Matern([0.4], "fixed", nu=2.5) + WhiteKernel(0.1, "fixed")
    mean, deviation, incumbent = posterior(x, y, noise, np.empty((0, 1)), wanted, kernel)
    inverse = np.linalg.inv(1.3 * matern(x, x, 0.4) + np.diag(0.1 + noise))
    cross = 1.3 * matern(wanted, x, 0.4)
    assert mean == pytest.approx(cross @ inverse @ y, abs=1e-5)
    assert deviation**2 == pytest.approx(1.3 - np.einsum("ij,jk,ik->i", cross, inverse, cross), abs=1e-5)
    assert incumbent == pytest.approx((1.3 * matern(x, x, 0.4) @ inverse @ y).max(), abs=1e-5)


def test_expected_improvement_is_the_mean_of_what_lies_above() -> None:
    draws = np.random.default_rng(0).normal(0.2, 0.5, 400_000)
    found = expected_improvement(np.array([0.2]), np.array([0.5]), 0.4)
    assert found[0] == pytest.approx(np.maximum(draws - 0.4, 0).mean(), rel=0.02)


def config(**search: object) -> SweepConfig:
    space = {"background.remove": {"uniform": [0.0, 1.0]}}
    return resolve({"space": space, "search": {"algorithm": "gp", "trials": 20, "baseline": False, **search}})


def proposals(noisy: bool) -> list[float]:
    """Eight proposals after trials of which the best, at 0.2, has a large standard error, if that is told."""
    found = []
    for seed in range(8):
        searcher = GaussianSearcher(config(seed=seed))
        tried = [(0.2, 0.9, 0.4)] + [
            (x, 0.6 - 2 * (x - 0.7) ** 2, 0.01) for x in (0.05, 0.35, 0.5, 0.6, 0.7, 0.8, 0.95)
        ]
        for number, (x, value, error) in enumerate(tried):
            searcher.add_fixed(f"t{number}", {"background.remove": x})
            searcher.on_result(f"t{number}", 200, {"knn_top1": value})
            searcher.on_errors(f"t{number}", {"knn_top1": error if noisy else 0.01})
            searcher.on_end(f"t{number}", "completed", {"knn_top1": value})
        found.append(searcher.propose("t8")["background.remove"])
    return found


def test_evidence_of_little_noise_counts_more() -> None:
    assert np.median(np.abs(np.array(proposals(noisy=True)) - 0.7)) < 0.15
    assert np.median(np.abs(np.array(proposals(noisy=False)) - 0.2)) < 0.15


def test_standard_errors_reach_the_searcher_also_after_a_restart() -> None:
    searcher = TuneSearcher(config())
    given = searcher.suggest("one")
    assert isinstance(given, dict)
    result = {"epoch": 200, "knn_top1": 0.5, "knn_top1_se": 0.02}
    searcher.on_trial_complete("one", result)
    own = searcher._searcher
    assert isinstance(own, GaussianSearcher)
    assert own._errors == {"t00": [0.02]} and own._ended == {"t00": True}
    assert set(given[VALUES]) == {"background.remove"}


def test_a_trial_that_was_stopped_counts_with_the_rise_of_the_others() -> None:
    searcher = GaussianSearcher(config())
    for name, curve in (("t0", {10: 0.2, 200: 0.6}), ("t1", {10: 0.3, 200: 0.5}), ("t2", {10: 0.1})):
        searcher.add_fixed(name, {"background.remove": 0.1})
        for epoch, value in curve.items():
            searcher.on_result(name, epoch, {"knn_top1": value})
        searcher.on_end(name, "completed" if 200 in curve else "stopped", {"knn_top1": list(curve.values())[-1]})
    assert searcher._at_end("t2") == pytest.approx([0.1 + 0.3])


def test_stopped_trials_of_an_earlier_sweep_are_not_taken_for_finished_ones() -> None:
    """Every gap is small at first, so that those that were stopped earliest would look best."""

    def earlier(name: str, status: Literal["completed", "stopped"], x: float, gap: float) -> Learned:
        values, metrics = {"background.remove": x}, {"bg_gap": gap}
        return Learned(sweep="first", source=name, values=values, status=status, metrics=metrics)

    whole = [earlier(f"t{x}", "completed", x / 10, 0.05 + abs(x / 10 - 0.2)) for x in range(11)]
    stopped = [earlier(f"t{x + 11}", "stopped", 0.7 + x / 40, 0.01) for x in range(8)]
    found = TuneSearcher(config(metric="bg_gap"), [*whole, *stopped]).suggest("one")
    assert isinstance(found, dict) and found[VALUES]["background.remove"] == pytest.approx(0.2, abs=0.1)
    assert found == TuneSearcher(config(metric="bg_gap"), whole).suggest("one")


def test_it_finds_the_peak_that_random_search_misses() -> None:
    """The distance of the last proposals from the peak, as of TPE in test_searcher.py; metrics have noise."""
    draw = np.random.default_rng(0)
    searcher, given = TuneSearcher(config(trials=30)), []
    for number in range(30):
        proposed = searcher.suggest(str(number))
        assert isinstance(proposed, dict)
        given.append(abs(proposed[VALUES]["background.remove"] - 0.5))
        value = -(given[-1] ** 2) + draw.normal(0, 0.02)
        searcher.on_trial_complete(str(number), {"epoch": 200, "knn_top1": value, "knn_top1_se": 0.02})
    assert np.mean(given[-10:]) < 0.12
