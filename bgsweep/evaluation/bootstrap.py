"""How sure a difference between two encoders is that were measured on the same pictures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from bgsweep.evaluation.frozen_model import Measured

LEVEL = 0.95
_DRAWS = 10_000_000  # numbers held at once: of mCE nearly every photograph is of a kind of its own


@dataclass(frozen=True)
class Difference:
    """`second` minus `first`, the interval that holds it with 95 % confidence, and whether that leaves zero out."""

    value: float
    lower: float
    upper: float

    @property
    def significant(self) -> bool:
        return self.lower > 0 or self.upper < 0


def by_photograph(measured: Measured, photographs: npt.NDArray[Any]) -> Measured:
    """The same value with one entry for each photograph, of which there may be several pictures.

    Several backgrounds of one foreground, or corruptions of one photograph, are not independent: they are drawn
    together or not at all. Drawn one by one, `paired` would take them for more evidence than they are.

    Args:
        photographs: which photograph each picture (N,) is made of.
    """
    places = np.unique(photographs, return_inverse=True)[1]
    sums = (np.asarray(np.bincount(places, part), np.float64) for part in (measured.hits, measured.counted))
    return Measured(measured.name, *sums)


def paired(first: Measured, second: Measured, resamplings: int, seed: int = 0) -> Difference:
    """Paired percentile bootstrap (Efron 1979): photographs are drawn with replacement, the same for both encoders.

    Shares whose denominators differ, such as shape bias, are taken anew in every resampling. The interval is of which
    photographs the set holds; how training runs differ from seed to seed it cannot tell. It is NaN where one
    number stands for a whole set.
    """
    assert len(first.hits) == len(second.hits), "both were measured on the same photographs"
    if len(first.hits) < 2:  # one number for a whole set, as average precision is
        return Difference(second.value - first.value, float("nan"), float("nan"))
    generator = np.random.default_rng(seed)
    columns = np.stack([first.hits, first.counted, second.hits, second.counted], axis=1)
    # Photographs on which the two fare alike are alike: how often each kind is drawn is multinomial, which is as exact
    # as drawing them one by one, and as quick for millions of them.
    kinds, sizes = np.unique(columns, axis=0, return_counts=True)
    each = max(1, _DRAWS // len(kinds))
    parts = [min(each, resamplings - done) for done in range(0, resamplings, each)]
    shares = sizes / len(columns)
    totals = np.concatenate([generator.multinomial(len(columns), shares, size=part) @ kinds for part in parts])
    with np.errstate(invalid="ignore", divide="ignore"):
        values = totals[:, 2] / totals[:, 3] - totals[:, 0] / totals[:, 1]
    tail = (1 - LEVEL) / 2
    lower, upper = np.nanquantile(values, [tail, 1 - tail]) if np.isfinite(values).any() else (np.nan, np.nan)
    return Difference(second.value - first.value, float(lower), float(upper))


def paired_seeds(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Mean of ``second - first``, seed by seed, with Student's t interval; at least two seeds."""
    differences = [b - a for a, b in zip(first, second, strict=True)]
    value, count = mean(differences), len(differences)
    half = float(stdtrit(count - 1, (1 + LEVEL) / 2)) * stdev(differences) / math.sqrt(count)
    return Difference(value, value - half, value + half)
