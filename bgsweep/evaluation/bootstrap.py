"""Paired confidence intervals of the difference between encoders that were evaluated on the same images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from bgsweep.evaluation.evaluator import PerImageMetric
from bgsweep.seeding import Draw, rng_key

LEVEL = 0.95
SEEDS = 3  # fewer have no interval of their own
_DRAWS = 10_000_000  # numbers held at once: of mCE nearly every image is of a kind of its own


@dataclass(frozen=True)
class Difference:
    """`second` minus `first`, the interval that holds it with 95 % confidence, and whether that leaves zero out."""

    value: float
    lower: float
    upper: float

    @property
    def significant(self) -> bool:
        """True if the interval does not contain 0."""
        return self.lower > 0 or self.upper < 0


def paired(first: PerImageMetric, second: PerImageMetric, resamplings: int, seed: int = 0) -> Difference:
    """Paired percentile bootstrap (Efron 1979): images are drawn with replacement, the same for both encoders.

    Shares whose denominators differ, such as shape bias, are taken anew in every resampling. The interval is of which
    images the set holds; how training runs differ from seed to seed it cannot tell. It is NaN where one number stands
    for a whole set.

    Two images are added to those drawn from, one that only the first model gets right and one that only the second does
    (Bonett & Price 2012). Without them, two models that agree on all images would have an interval of no width, and
    four images of two hundred, on which p of the exact test is .125, would be a sure difference. With them, models that
    agree on n images differ by less than about 3/n.
    """
    assert len(first.hits) == len(second.hits), "both were measured on the same images"
    if len(first.hits) < 2:  # one number for a whole set, as average precision is
        return Difference(second.value - first.value, float("nan"), float("nan"))
    columns = np.stack([first.hits, first.counted, second.hits, second.counted], axis=1)
    totals = _totals(np.concatenate([columns, _contrary(columns)]), resamplings, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = totals[:, 2] / totals[:, 3] - totals[:, 0] / totals[:, 1]
    return _between(second.value - first.value, values)


def one_sample(value: PerImageMetric, resamplings: int, seed: int = 0, signed: bool = False) -> Difference:
    """A value of one encoder with its percentile bootstrap interval over images; NaN for fewer than two.

    Two opposite images are added to shares, as in `paired`: the interval of 20 of 20 has a width.

    Args:
        signed: the value may be below zero, as a difference of two shares.
    """
    if len(value.hits) < 2:
        return Difference(value.value, float("nan"), float("nan"))
    columns = np.stack([value.hits, value.counted], axis=1)
    if len(kinds := np.unique(value.hits)) <= 3 and value.counted.any():  # of others, no two images are alike anyway
        usual = float(np.median(value.counted[value.counted > 0]))
        least = -usual if signed or kinds[0] < 0 else 0.0
        columns = np.concatenate([columns, [[least, usual], [usual, usual]]])
    totals = _totals(columns, resamplings, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        return _between(value.value, totals[:, 0] / totals[:, 1])


def _totals(columns: npt.NDArray[np.float64], resamplings: int, seed: int) -> npt.NDArray[np.float64]:
    """Sums of the columns (N x C) over images drawn with replacement: resamplings x C."""
    generator = np.random.default_rng(rng_key(seed, 0, "", Draw.BOOTSTRAP))
    # Images on which the two fare alike are alike: how often each kind is drawn is multinomial, which is as exact
    # as drawing them one by one, and as quick for millions of them.
    kinds, sizes = np.unique(columns, axis=0, return_counts=True)
    each = max(1, _DRAWS // len(kinds))
    parts = [min(each, resamplings - done) for done in range(0, resamplings, each)]
    shares = sizes / len(columns)
    drawn = [generator.multinomial(len(columns), shares, size=part) @ kinds for part in parts]
    return np.asarray(np.concatenate(drawn), np.float64)


def _between(value: float, values: npt.NDArray[np.float64]) -> Difference:
    """A value with the percentiles of its resamplings."""
    tail = (1 - LEVEL) / 2
    lower, upper = np.nanquantile(values, [tail, 1 - tail]) if np.isfinite(values).any() else (np.nan, np.nan)
    return Difference(value, float(lower), float(upper))


def agree(first: PerImageMetric, second: PerImageMetric) -> bool:
    """True if two models have the same result on every image."""
    return bool(np.array_equal(first.hits, second.hits) and np.array_equal(first.counted, second.counted))


def _contrary(columns: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Two images with the usual number of versions; one model has all of them right and the other none."""
    medians = np.median(columns[:, [1, 3]][columns[:, [1, 3]] > 0]) if (columns[:, [1, 3]] > 0).any() else 1.0
    # What is no share, such as mCE, may be more than one for an image.
    most = max(medians, float(np.abs(columns[:, [0, 2]]).max()))
    return np.array([[0, medians, most, medians], [most, medians, 0, medians]])


def paired_seeds(
    first: Sequence[float], second: Sequence[float], of_images: tuple[float, float] | None = None
) -> Difference:
    """Mean of ``second - first``, seed by seed, with Student's t interval over the seeds.

    All seeds are evaluated on the same images, so that more seeds do not make up for few images. Fewer than three
    seeds, or seeds that all differ by the same, do not tell the spread: without `of_images` the interval is NaN.

    Args:
        of_images: interval of the difference over images; its distances from the value are added in squares.
    """
    differences = [b - a for a, b in zip(first, second, strict=True)]
    value, count = mean(differences), len(differences)
    spread = stdev(differences) if count > 1 else 0.0
    half = float(stdtrit(max(1, count - 1), (1 + LEVEL) / 2)) * spread / math.sqrt(count)
    if of_images is not None:
        return Difference(
            value, value - math.hypot(half, value - of_images[0]), value + math.hypot(half, of_images[1] - value)
        )
    if count < SEEDS or half == 0:
        return Difference(value, math.nan, math.nan)
    return Difference(value, value - half, value + half)


def crossed(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> Difference:
    """Mean of ``second - first`` with an interval that holds for other seeds and for other images.

    Seeds and images are crossed random effects of the differences, as readers and cases are in studies of diagnostic
    tests; the interval is Student's t with the degrees of freedom of Hillis (2007, eq. 10).

    Args:
        first, second: each image's part in the value, S seeds x N images of at least two each, the same in both.

    Returns:
        NaN as interval where no difference varies.
    """
    differences = second - first
    seeds, images = differences.shape
    value = differences.mean()
    of_seeds, of_images = differences.mean(axis=1) - value, differences.mean(axis=0) - value
    rest = differences - value - of_seeds[:, None] - of_images
    square_seeds = images * float((of_seeds**2).sum()) / (seeds - 1)
    square_images = seeds * float((of_images**2).sum()) / (images - 1)
    square_rest = float((rest**2).sum()) / ((seeds - 1) * (images - 1))
    variance = square_seeds + max(square_images - square_rest, 0.0)
    if square_seeds <= 0:  # no spread to divide by: then the images' alone, which is as if there were one seed
        variance = square_images
    if variance <= 0:
        return Difference(float(value), math.nan, math.nan)
    freedom = (seeds - 1) * (variance / square_seeds) ** 2 if square_seeds > 0 else images - 1
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * math.sqrt(variance / (seeds * images))
    return Difference(float(value), float(value) - half, float(value) + half)
