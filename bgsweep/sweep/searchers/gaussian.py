"""Bayesian optimisation by a Gaussian process that knows how noisy each trial is."""

import math
import warnings
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bgsweep.config import Distribution, SweepConfig
from bgsweep.sweep.searchers.base import TrialSearcher
from bgsweep.sweep.searchers.curves import expected_end

Values = npt.NDArray[np.float64]

_DRAWN, _NEAR = 1000, 500  # candidates: anywhere, and with some values of one of the best trials
# Lengths of at most twice the range: with longer ones it takes noise for a slope, and stays in a corner.
_LENGTHS, _LEVELS, _NOISE = (0.1, 2.0), (0.1, 10.0), (1e-4, 1.0)
_STARTUP = (4, 10)


class GaussianSearcher(TrialSearcher):
    """Expected improvement over the best mean of a Gaussian process (Jones et al. 1998; Huang et al. 2006 for noise).

    A trial's noise is the standard error of its metric, over seeds where there are several, taken half-way to the mean
    of all, as the winner is chosen (`bgsweep.sweep.selection.cautious`); what the process adds for noise beyond it is
    fitted. A trial that was stopped counts as if it rose as much as those that have completed. Of several metrics each
    proposal looks for another weighting (ParEGO, Knowles 2006). Running trials count as if they had what is expected.
    """

    def __init__(self, config: SweepConfig) -> None:
        super().__init__(config)
        self._signs = np.array(list(config.search.signs.values()), np.float64)
        self._points: dict[str, dict[str, Any]] = {}
        self._curves: dict[str, dict[int, list[float]]] = {}
        self._errors: dict[str, list[float]] = {}
        self._ended: dict[str, bool] = {}  # those with metrics: True if they completed

    def add_fixed(self, trial: str, values: Mapping[str, Any]) -> None:
        self._points[trial] = dict(values)
        self._ended.pop(trial, None)

    def on_result(self, trial: str, epoch: int, metrics: Mapping[str, float]) -> None:
        self._curves.setdefault(trial, {})[epoch] = list(metrics.values())

    def on_errors(self, trial: str, errors: Mapping[str, float]) -> None:
        if len(errors) == len(self._signs):
            self._errors[trial] = list(errors.values())

    def on_end(
        self, trial: str, status: Literal["completed", "stopped", "failed"], metrics: Mapping[str, float]
    ) -> None:
        earlier = trial not in self._curves  # of another sweep, whose curves are not known
        # A value of an epoch that is not known compares with no other: early ones of some metrics are the best.
        if status == "failed" or trial not in self._points or (earlier and status == "stopped"):
            self._points.pop(trial, None)
            return
        if earlier:
            self._curves[trial] = {self.config.experiment.training.epochs: list(metrics.values())}
        self._ended[trial] = status == "completed"

    def propose(self, trial: str) -> dict[str, Any]:
        random = Random(f"{self.config.search.seed} {trial}")
        low, high = _STARTUP
        if len(self._ended) < min(high, max(low, self.config.search.trials // 4)):
            found = self.config.space.draw(random)
        else:
            found = self._best(random)
        self._points[trial] = self.config.typed(found)
        return self._points[trial]

    def _best(self, random: Random) -> dict[str, Any]:
        """The most promising of many candidates."""
        scores, noise = self._observed(random)
        known = [self._points[name] for name in self._ended]
        best = [known[index] for index in np.argsort(-scores)[:3]]
        candidates = [self.config.space.draw(random) for _ in range(_DRAWN)]
        candidates += [self._near(random.choice(best), random) for _ in range(_NEAR)]
        running = [point for name, point in self._points.items() if name not in self._ended]
        table = np.array([self._features(each) for each in [*known, *running, *candidates]])
        observed, waiting, rest = np.split(table, [len(known), len(known) + len(running)])
        mean, deviation, incumbent = posterior(observed, scores, noise, waiting, rest)
        return candidates[int(expected_improvement(mean, deviation, incumbent).argmax())]

    def _near(self, one: Mapping[str, Any], random: Random) -> dict[str, Any]:
        """Values of another trial, some of them drawn again."""
        values: dict[str, Any] = {}
        for key, _, distribution in self.config.space.walk(values):
            keeps = key in one and distribution.contains(one[key]) and random.random() < 0.6
            values[key] = one[key] if keeps else distribution.draw(random)
        return values

    def _observed(self, random: Random) -> tuple[Values, Values]:
        """Of each trial that has ended its score, with mean 0 and variance 1, and the variance of its noise."""
        ends = np.array([self._at_end(name) for name in self._ended]) * self._signs
        usual = np.sqrt(np.mean([np.square(each) for each in self._errors.values()], axis=0)) if self._errors else 0.0
        own = np.array([self._errors.get(name, np.broadcast_to(usual, self._signs.shape)) for name in self._ended])
        spread = np.where(np.std(ends, axis=0) > 0, np.std(ends, axis=0), 1.0)
        scaled = (ends - ends.mean(0)) / spread
        variance = (np.square(own) + np.square(usual)) / 2 / np.square(spread)
        weights = np.array([-math.log(1 - random.random()) for _ in self._signs])
        weights /= weights.sum()
        if len(weights) > 1:
            scaled = np.min(weights * (scaled - scaled.max(0)), axis=1) + 0.05 * (weights * scaled).sum(1)
        else:
            scaled = scaled[:, 0]
        level = float(scaled.std()) or 1.0
        noise = (np.square(weights) * variance).sum(1)
        return (scaled - scaled.mean()) / level, noise / level**2

    def _at_end(self, name: str) -> Sequence[float]:
        """A trial's metrics at its end, or for one that was stopped those to expect."""
        curve = self._curves[name]
        own = curve[max(curve)]
        if self._ended[name]:
            return own
        return expected_end(curve, (one for other, one in self._curves.items() if self._ended.get(other))) or own

    def _features(self, values: Mapping[str, Any]) -> list[float]:
        """A point as numbers: each range from 0 to 1, each option by itself; 0 where a key does not apply."""
        applying = {(key, number) for key, number, _ in self.config.space.walk(dict(values))}
        found: list[float] = []
        for key, ones in self.config.space.parameters.items():
            for number, one in enumerate(ones):
                found += _numbers(one, values[key]) if (key, number) in applying else [0.0] * _width(one)
        return found


def posterior(
    observed: Values, scores: Values, noise: Values, waiting: Values, wanted: Values, kernel: Any = None
) -> tuple[Values, Values, float]:
    """A Gaussian process (Matern 5/2) given observations and the variance of the noise of each.

    Args:
        observed: (n, d). scores: (n,), of mean 0 and variance about 1. noise: (n,).
        waiting: (m, d), points that are taken to have their expected score.
        kernel: a signal and, added to it, a `WhiteKernel`; None: with the most likely lengths and levels.

    Returns:
        Mean and standard deviation at the wanted points, without noise, and the highest mean at the observed ones.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
    from threadpoolctl import threadpool_limits

    lengths = np.full(observed.shape[1], 0.5)
    kernel = kernel or ConstantKernel(1.0, _LEVELS) * Matern(lengths, _LENGTHS, nu=2.5) + WhiteKernel(0.1, _NOISE)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = GaussianProcessRegressor(kernel, alpha=noise + 1e-8).fit(observed, scores)
        means = model.predict(observed)
        if len(waiting):
            every, told = np.vstack([observed, waiting]), np.concatenate([scores, model.predict(waiting)])
            alpha = np.concatenate([noise, np.full(len(waiting), noise.mean())]) + 1e-8
            model = GaussianProcessRegressor(model.kernel_, alpha=alpha, optimizer=None).fit(every, told)
        mean, deviation = model.predict(wanted, return_std=True)
    own = float(model.kernel_.k2.noise_level)
    return mean, np.sqrt(np.maximum(np.square(deviation) - own, 1e-12)), float(means.max())


def expected_improvement(mean: Values, deviation: Values, incumbent: float) -> Values:
    """The mean of what normal values lie above the incumbent."""
    from scipy.stats import norm

    z = (mean - incumbent) / deviation
    found: Values = deviation * (z * norm.cdf(z) + norm.pdf(z))
    return found


def _width(one: Distribution) -> int:
    return len(one.options) if one.options else 1


def _numbers(one: Distribution, value: Any) -> Sequence[float]:
    if one.bounds is None:
        return [float(value == option) for option in one.options or ()]
    low, high = one.bounds
    if one.loguniform:
        return [math.log(value / low) / math.log(high / low)]
    return [(value - low) / (high - low)]
