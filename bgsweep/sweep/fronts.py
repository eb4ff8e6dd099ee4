"""Points with several values, all of which shall be high: order by fronts, and the hypervolume that they dominate."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bgsweep.report.dominance import ranks

Points = npt.NDArray[np.float64]


def crowding(points: Points) -> list[float]:
    """The crowding distance of each point of one front (Deb et al. 2002); the extremes have an infinite one."""
    found = np.zeros(len(points))
    for values in points.T:
        by_value = np.argsort(values, kind="stable")
        found[by_value[[0, -1]]] = math.inf
        if (span := values[by_value[-1]] - values[by_value[0]]) > 0:
            found[by_value[1:-1]] += (values[by_value[2:]] - values[by_value[:-2]]) / span
    return [float(each) for each in found]


def by_crowding(points: Points) -> list[int]:
    """Indices of the points of one front, the loneliest first; of equal ones the earlier."""
    distances = crowding(points)
    return sorted(range(len(points)), key=lambda index: -distances[index])


def by_epsilon_net(points: Points) -> list[int]:
    """Indices of the points of one front in the order of an epsilon-net (Salinas et al. 2021).

    First the best by the first value, then always the one that is farthest from those before; each value is scaled to
    its range.
    """
    span = np.ptp(points, axis=0)
    scaled = (points - points.min(0)) / np.where(span > 0, span, 1.0)
    order = [int(points[:, 0].argmax())]
    nearest = np.full(len(points), np.inf)
    while len(order) < len(points):
        nearest = np.minimum(nearest, np.linalg.norm(scaled - scaled[order[-1]], axis=1))
        nearest[order] = -1.0
        order.append(int(nearest.argmax()))
    return order


SPREADS = {"crowding": by_crowding, "epsilon_net": by_epsilon_net}
"""Orders within a front, by their names in `search.scheduler_options`."""


def best_first(points: Sequence[Sequence[float]], spread: str = "crowding") -> list[int]:
    """Indices of all points: by fronts, within each so that the first ones are spread over it."""
    every: Any = np.asarray(points, np.float64)
    fronts = np.array(ranks(every.tolist()))
    found: list[int] = []
    for front in range(int(fronts.max()) + 1):
        own = np.flatnonzero(fronts == front)
        found += [int(own[index]) for index in SPREADS[spread](every[own])]
    return found


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """The volume of what at least one point dominates above a reference, which may be better than some points."""
    inside = sorted({tuple(point) for point in points if all(a > b for a, b in zip(point, reference, strict=True))})
    if len(reference) == 1 or not inside:
        return max((point[0] for point in inside), default=reference[0]) - reference[0]
    # Slices along the first value, from the highest down: each as deep as to the next lower point.
    found, above = 0.0, list[Sequence[float]]()
    for index in range(len(inside) - 1, -1, -1):
        above.append(inside[index][1:])
        depth = inside[index][0] - (inside[index - 1][0] if index else reference[0])
        if depth > 0:
            found += depth * hypervolume(above, reference[1:])
    return found


class FrontHalving:
    """Asynchronous successive halving by several values (Schmucker et al. 2021).

    At the rungs, ``grace`` · ``reduction``^n epochs, a trial goes on if it is among the first 1/``reduction`` of those
    that have reached the rung so far, itself included, in the order of `best_first`.
    """

    def __init__(self, grace: int, most: int, reduction: int, spread: str) -> None:
        count = int(math.log(most / grace) / math.log(reduction) + 1e-9) + 1
        self._reduction, self._spread = reduction, spread
        self._rungs: list[tuple[int, dict[str, Sequence[float]]]] = [
            (grace * reduction**number, {}) for number in range(count)
        ]

    def stops(self, trial: str, epoch: int, scores: Sequence[float]) -> bool:
        """True if a trial shall end after an epoch in which it was evaluated; higher scores are better."""
        reached = [there for milestone, there in self._rungs if milestone <= epoch]
        if not reached or trial in reached[-1]:
            return False
        there = reached[-1]
        there[trial] = scores
        place = best_first(list(there.values()), self._spread).index(len(there) - 1) + 1
        return place > max(1.0, len(there) / self._reduction)
