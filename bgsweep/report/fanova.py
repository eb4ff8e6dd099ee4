"""Shares of the variance between trials that parameters explain alone (fANOVA, Hutter et al. 2014)."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bgsweep.config import Distribution

Values = npt.NDArray[np.float64]

_TREES, _DEPTH = 16, 6  # for a few hundred trials at most: leaves of deeper trees would contain one trial each


@dataclass(frozen=True)
class Columns:
    """Points as numbers, the form in which forests are fitted: a range is one column, each option of a choice is one.

    Attributes:
        table: (points, columns).
        of: the columns of each parameter; none of one that has a single value.
        low: the lowest value of each column. high: the highest.
    """

    table: Values
    of: Mapping[str, Sequence[int]]
    low: Values
    high: Values


def columns(space: Mapping[str, Distribution], points: Sequence[Mapping[str, Any]]) -> Columns:
    """The columns of parameters, in the order of their names."""
    found, of, low, high = list[list[float]](), dict[str, Sequence[int]](), list[float](), list[float]()
    for key, one in sorted(space.items()):
        if one.bounds is not None:
            own, (lowest, highest) = [[float(point[key]) for point in points]], one.bounds
        else:
            options = list(dict.fromkeys(str(option) for option in one.options or ()))
            own = [[float(str(point[key]) == option) for point in points] for option in options]
            lowest, highest = 0.0, float(len(options) > 1)
        own = own if highest > lowest else []
        of[key] = range(len(found), len(found) + len(own))
        found, low, high = found + own, low + [lowest] * len(own), high + [highest] * len(own)
    return Columns(np.array(found).T.reshape(len(points), len(found)), of, np.array(low), np.array(high))


def shares(space: Columns, rows: Sequence[int] | npt.NDArray[np.int64], values: Values, seed: int) -> dict[str, float]:
    """The share of each parameter, for these points: the mean over the trees of a random forest.

    Those of Optuna's `FanovaImportanceEvaluator`, up to rounding, for less than half of its time.
    """
    from sklearn.ensemble import RandomForestRegressor

    if not space.low.size:
        return dict.fromkeys(space.of, 0.0)
    forest = RandomForestRegressor(n_estimators=_TREES, max_depth=_DEPTH, random_state=seed)
    forest.fit(space.table[rows].astype(np.float32), values)
    trees = [each for each in (_Leaves(one.tree_, space) for one in forest.estimators_) if each.variance > 0]
    return {
        key: float(np.mean([one.alone(own) for one in trees])) if trees and own else 0.0
        for key, own in space.of.items()
    }


class _Leaves:
    """The leaves of a tree as boxes that fill the space, each with its value."""

    def __init__(self, tree: Any, space: Columns) -> None:
        self._whole = np.stack([space.low, space.high], axis=1)
        boxes, values = list[Values](), list[float]()
        left, right, features, thresholds = tree.children_left, tree.children_right, tree.feature, tree.threshold
        stack = [(0, self._whole)]
        while stack:
            node, box = stack.pop()
            if features[node] < 0:
                boxes.append(box)
                values.append(float(tree.value[node].reshape(-1)[0]))
                continue
            for child, edge in ((left[node], 1), (right[node], 0)):
                part = box.copy()
                part[features[node], edge] = thresholds[node]
                stack.append((child, part))
        self._boxes, self._values = np.array(boxes), np.array(values)  # (leaves, columns, 2), (leaves,)
        self._widths = self._boxes[:, :, 1] - self._boxes[:, :, 0]
        self.variance = _variance(self._values, self._widths.prod(axis=1))

    def alone(self, own: Sequence[int]) -> float:
        """The share of the variance that some columns explain, with the mean over all others."""
        cells = [np.unique(np.concatenate([self._whole[column], self._boxes[:, column].ravel()])) for column in own]
        middles = np.array(list(itertools.product(*((each[1:] + each[:-1]) / 2 for each in cells))))
        sizes = np.array(list(itertools.product(*(np.diff(each) for each in cells)))).prod(axis=1)
        boxes = self._boxes[:, list(own)]
        inside = ((middles[:, None] > boxes[..., 0]) & (middles[:, None] <= boxes[..., 1])).all(axis=2)
        weights = inside * np.delete(self._widths, list(own), axis=1).prod(axis=1)  # (cells, leaves)
        means = (weights * self._values).sum(axis=1) / weights.sum(axis=1)
        return _variance(means, sizes) / self.variance


def _variance(values: Values, weights: Values) -> float:
    return float(np.average(np.square(values - np.average(values, weights=weights)), weights=weights))
