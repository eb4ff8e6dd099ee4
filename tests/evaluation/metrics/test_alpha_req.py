"""alpha-ReQ on spectra that are known."""

import numpy as np
import pytest

from bgsweep.evaluation.metrics.alpha_req import decay
from tests.evaluation.metrics.clouds import cloud, turned


def with_spectrum(eigenvalues: np.ndarray, count: int = 400) -> np.ndarray:
    """Features whose covariance has exactly these eigenvalues."""
    basis = cloud(count, len(eigenvalues))
    scores, _ = np.linalg.qr(basis - basis.mean(axis=0))
    return np.asarray(turned(scores * np.sqrt(eigenvalues)) + 3)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.5])
def test_the_exponent_of_a_power_law(alpha: float) -> None:
    features = with_spectrum(np.arange(1, 61, dtype=float) ** -alpha)
    assert decay(features, 5, 50) == pytest.approx(alpha, abs=1e-6)
    assert decay(40 * features, 1, 60) == pytest.approx(alpha, abs=1e-6)


def test_it_is_weighted_least_squares_over_the_range() -> None:
    spectrum = np.sort(np.random.default_rng(0).uniform(0.1, 9, 30))[::-1]
    places = np.arange(3, 21)
    slope, _ = np.polyfit(np.log(places), np.log(spectrum[2:20]), 1, w=np.sqrt(1 / places))
    assert decay(with_spectrum(spectrum), 3, 20) == pytest.approx(-slope, abs=1e-6)


def test_limits() -> None:
    assert decay(cloud(20000, 30), 5, 30) == pytest.approx(0, abs=0.08)
    assert decay(cloud(100, 1) @ cloud(1, 30), 5, 30) > 5
    assert np.isfinite(decay(np.ones((50, 8)), 5, 100)) and decay(cloud(2, 8), 5, 100) == 0
    assert decay(cloud(12, 40), 5, 100) == decay(cloud(12, 40), 5, 11), "eleven eigenvalues of twelve images"
