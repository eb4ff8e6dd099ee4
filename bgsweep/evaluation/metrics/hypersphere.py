"""Alignment and uniformity (Wang & Isola 2020): views of an image close together, all images spread on the sphere."""

import math
from collections.abc import Iterator

import numpy as np

from bgsweep.evaluation.metrics.base import GROUPS, Array, Measured, OnlineMetric, mean_and_error, unit
from bgsweep.evaluation.metrics.inputs import validation_features, view_features

_T = 2.0  # the paper's


def alignment(first: Array, second: Array) -> tuple[float, float]:
    """The mean of |f(x) - f(y)|^2 over pairs of views (N, D) scaled to length 1, 0 to 4, and its standard error."""
    return mean_and_error(((unit(first) - unit(second)) ** 2).sum(axis=1))


def uniformity(features: Array) -> tuple[float, float]:
    """ln of the mean of exp(-2 |f(x) - f(y)|^2) over pairs of different images, features (N, D) scaled to length 1.

    0 where all are the same, and lower the better they are spread.

    Returns:
        The value, and its standard error by the jackknife over groups of images.
    """
    scaled = unit(features)
    kernel = np.exp(-2 * _T * (1 - scaled @ scaled.T).clip(min=0))
    count, groups = len(scaled), min(GROUPS, len(scaled) // 2)
    np.fill_diagonal(kernel, 0)
    whole = math.log(kernel.sum() / (count * (count - 1)))
    if groups < 2:
        return whole, math.nan
    # Without a group, its rows and columns are missing from the sum, and its own block was taken off twice.
    member = np.eye(groups)[np.arange(count) % groups]
    blocks, sizes = member.T @ kernel @ member, count - member.sum(axis=0)
    left = kernel.sum() - 2 * blocks.sum(axis=1) + np.diag(blocks)
    values = np.log(left / (sizes * (sizes - 1)))
    return whole, float(np.sqrt((groups - 1) / groups * ((values - values.mean()) ** 2).sum()))


class Hypersphere(OnlineMetric):
    """Alignment, uniformity and their sum, of the encoder's features; lower is better.

    The paper takes them of the output that its loss acts on, and shows that both together go with the accuracy of the
    encoder. Here it is the encoder's (see `RankMe`). Rotating or scaling all features does not change them.

    Limits: neither means anything alone; a collapsed encoder has the best alignment, random features the best
    uniformity. In their sum both count alike, for which the paper has no other reason than that it worked.
    """

    def measure(self) -> Iterator[Measured]:
        first, second = (view_features(self.context, self.settings.images, view) for view in range(2))
        near, near_error = alignment(first, second)
        even, even_error = uniformity(validation_features(self.context, self.settings.most))
        yield Measured("sum", near + even, math.hypot(near_error, even_error))
        yield Measured("alignment", near, near_error)
        yield Measured("uniformity", even, even_error)
