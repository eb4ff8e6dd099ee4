"""The protocol of metrics of the online evaluation, and standard errors of statistics that are no means.

    class Spread(OnlineMetric):
        def measure(self) -> Iterator[Measured]:
            features = self.context.images.variant("original").values.numpy()
            yield Measured("spread", float(features.std()))

Its section, which the configuration names, is a `bgsweep.config.metrics.MetricSection`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from bgsweep.evaluation.context import EvalContext

Array = npt.NDArray[np.floating[Any]]

GROUPS = 10


class Measured(NamedTuple):
    """A value of a metric, finite also for an encoder that has collapsed, and its standard error, if it has one."""

    name: str
    value: float
    error: float | None = None


class OnlineMetric(ABC):
    """A metric of an encoder in training, on the validation split.

    `__init__` opens what it needs and raises `UserError` for what is missing; it computes nothing. Where several
    workers train, each of them measures, in the same order, and all must come to the same values: `context.made` and
    `context.images` divide the work of the encoder among them.
    """

    def __init__(self, settings: Any, context: "EvalContext") -> None:
        self.settings, self.context = settings, context

    @abstractmethod
    def measure(self) -> Iterator[Measured]:
        """The values, those and only those that the section names."""


def jackknife_error(statistic: Callable[[npt.NDArray[np.int64]], float], count: int, groups: int = GROUPS) -> float:
    """Standard error of a statistic of `count` images, by the jackknife over groups (Efron & Stein 1981).

    A bootstrap would draw images twice, and a rank falls where two rows are one; the jackknife only leaves some out.

    Args:
        statistic: its value for the images of some numbers.
        groups: groups of images that are left out, one after another.
    """
    groups = min(groups, count)
    if groups < 2:
        return math.nan
    numbers = np.arange(count)
    values = np.array([statistic(numbers[numbers % groups != left_out]) for left_out in range(groups)])
    return float(np.sqrt((groups - 1) / groups * ((values - values.mean()) ** 2).sum()))


def mean_and_error(values: Array) -> tuple[float, float]:
    """The mean of independent values, and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def entropy_rank(weights: Array) -> float:
    """exp of the entropy of weights that are made to sum to one: the number of them if all are equal.

    1 where all are zero. The constant inside of the logarithm is that of RankMe and LiDAR.
    """
    total = float(weights.sum())
    if total <= 0:
        return 1.0
    shares = weights / total + 1e-7
    return float(np.exp(-(shares * np.log(shares)).sum()))


def unit(features: Array) -> Array:
    """Features scaled to length 1; zero stays zero."""
    lengths = np.linalg.norm(features, axis=-1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, np.finfo(features.dtype).tiny))
