"""Statistics of few trials and few images, with their uncertainty; None if there are too few."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from bgsweep.config import Distribution

if TYPE_CHECKING:
    import optuna

Interval = tuple[float, float]
Values = npt.NDArray[np.float64]

# With fewer trials a curve or an importance would show noise.
TREND_TRIALS = 10
IMPORTANCE_TRIALS, IMPORTANCE_TRIALS_PER_PARAMETER = 20, 5

_Z = 1.959964  # two-sided 95 %
_GRID = 60
_TREND_MOST = 200  # the regression takes the cube of their number: of 1,000 trials many seconds for each parameter
_IMPORTANCE_MOST = 300  # Optuna copies each trial several times
_RESAMPLINGS = 40
_TREES, _DEPTH = 16, 6  # for a few hundred trials at most: leaves of deeper trees would contain one trial each
_FENCE = 3.0  # interquartile ranges beyond the quartiles, Tukey's "far out"


@dataclass(frozen=True)
class Trend:
    """A smooth curve: positions, mean, and the 95 % band of the mean."""

    x: Values
    mean: Values
    low: Values
    high: Values


def wilson(share: float, count: int) -> Interval:
    """95 % score interval (Wilson 1927) of a share of ``count`` images."""
    centre = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z / (1 + _Z**2 / count) * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def difference(first: float, of_first: Interval, second: float, of_second: Interval) -> Interval:
    """95 % interval of ``second - first`` from both intervals (Newcombe 1998, method 10; Zou 2008 in general).

    Assumes independent values; for encoders measured on the same images it is rather too wide.
    """
    value = second - first
    low = value - math.hypot(second - of_second[0], of_first[1] - first)
    return low, value + math.hypot(of_second[1] - second, first - of_first[0])


def trend(x: Sequence[float], y: Sequence[float], log: bool) -> Trend | None:
    """Gaussian-process regression of y on x, with the length scale and noise of maximum likelihood.

    ``log``: use the logarithm of x. Of more than 200 points so many are drawn. None for fewer than ten, or if x hardly
    varies.
    """
    if len(x) > _TREND_MOST:
        chosen = np.random.default_rng(0).choice(len(x), _TREND_MOST, replace=False)
        x, y = [x[index] for index in chosen], [y[index] for index in chosen]
    if len(x) < TREND_TRIALS or len(set(x)) < TREND_TRIALS // 2:
        return None
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    positions = np.log(x) if log else np.asarray(x, np.float64)
    low, span = positions.min(), np.ptp(positions)
    spread = float(np.std(y)) or 1.0
    # The second constant is the unknown mean level; without it, the band of a flat trend would have no width.
    curve = ConstantKernel(1.0, (1e-3, 1e2)) * RBF(0.5, (0.15, 10.0)) + ConstantKernel(100.0, "fixed")
    kernel = curve + WhiteKernel(0.5, (1e-4, 10.0))
    model = GaussianProcessRegressor(kernel, n_restarts_optimizer=1, random_state=0)
    middle = float(np.mean(y))
    # A flat likelihood is not an error: it means no trend. On matrices this small, BLAS threads only compete.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(((positions - low) / span)[:, None], (np.asarray(y) - middle) / spread)
    grid = np.linspace(0, 1, _GRID)
    mean, deviation = model.predict(grid[:, None], return_std=True)
    noise = float(model.kernel_.k2.noise_level)
    half = _Z * spread * np.sqrt(np.maximum(deviation**2 - noise, 0))
    shown = np.exp(low + grid * span) if log else low + grid * span
    return Trend(shown, mean * spread + middle, mean * spread + middle - half, mean * spread + middle + half)


def enough_for_importance(trials: int, parameters: int) -> int:
    """The number of trials still missing; 0 where there are enough."""
    return max(0, max(IMPORTANCE_TRIALS, IMPORTANCE_TRIALS_PER_PARAMETER * parameters) - trials)


def importance(
    space: Mapping[str, Distribution], points: Sequence[Mapping[str, Any]], values: Sequence[Sequence[float]]
) -> dict[str, tuple[float, Interval]]:
    """Share of the variance that each parameter explains alone (fANOVA, Hutter et al. 2014, by Optuna).

    With 95 % intervals over resampled trials and seeds. Of more than 300 trials so many are drawn.

    Args:
        values: of each trial those of its seeds, the same seeds for all.
    """
    if len(points) > _IMPORTANCE_MOST:
        chosen = np.random.default_rng(0).choice(len(points), _IMPORTANCE_MOST, replace=False)
        points, values = [points[index] for index in chosen], [values[index] for index in chosen]
    distributions = {key: _distribution(one) for key, one in space.items()}
    by_seed = np.asarray(values, np.float64)
    whole = _fanova(distributions, points, by_seed.mean(1).tolist(), 0)
    generator = np.random.default_rng(0)
    drawn = []
    for seed in range(_RESAMPLINGS):
        chosen = generator.integers(len(points), size=len(points))
        seeds = generator.integers(by_seed.shape[1], size=by_seed.shape[1])
        again = by_seed[chosen][:, seeds].mean(1).tolist()
        drawn.append(_fanova(distributions, [points[i] for i in chosen], again, seed))
    found = {}
    for key, value in whole.items():
        low, high = np.quantile([each[key] for each in drawn], [0.025, 0.975])
        found[key] = (float(value), (min(float(low), float(value)), max(float(high), float(value))))
    return found


def fences(values: Sequence[float]) -> Interval:
    """Lowest and highest value within Tukey's outer fences, which exclude outliers."""
    lower, upper = np.quantile(values, [0.25, 0.75])
    reach = _FENCE * (upper - lower)
    inside = [value for value in values if lower - reach <= value <= upper + reach]
    return min(inside), max(inside)


def _distribution(wanted: Distribution) -> "optuna.distributions.BaseDistribution":
    import optuna

    if wanted.bounds is not None:
        return optuna.distributions.FloatDistribution(*wanted.bounds, log=wanted.loguniform is not None)
    return optuna.distributions.CategoricalDistribution([str(option) for option in wanted.options or ()])


def _fanova(
    distributions: "Mapping[str, optuna.distributions.BaseDistribution]",
    points: Sequence[Mapping[str, Any]],
    values: Sequence[float],
    seed: int,
) -> dict[str, float]:
    import optuna

    if min(values) == max(values):  # the evaluator raises an error
        return dict.fromkeys(distributions, 0.0)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    for point, value in zip(points, values, strict=True):
        params = {
            key: str(point[key]) if isinstance(one, optuna.distributions.CategoricalDistribution) else point[key]
            for key, one in distributions.items()
        }
        study.add_trial(optuna.create_trial(params=params, distributions=dict(distributions), value=value))
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=_TREES, max_depth=_DEPTH, seed=seed)
    return dict(evaluator.evaluate(study))
