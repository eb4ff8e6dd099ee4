"""Fronts of points with several values, all of which shall be high.

A point dominates another if it is at least as good in all values, and better in one. Without NumPy, which `bgsweep
status` does not load.
"""

from collections.abc import Sequence

Point = Sequence[float]


def ranks(points: Sequence[Point]) -> list[int]:
    """The front of each point: 0 if no point dominates it, 1 if none but those of front 0 do, and so on.

    By efficient non-dominated sorting (Zhang et al. 2015).
    """
    found = [0] * len(points)
    fronts: list[list[Point]] = []
    # A point may only be dominated by those before it in this order; one with NaN neither dominates nor is dominated.
    comparable = [index for index, point in enumerate(points) if all(value == value for value in point)]
    for index in sorted(comparable, key=lambda each: tuple(points[each]), reverse=True):
        low, high = 0, len(fronts)
        while low < high:  # what no point of a front dominates none of a later one does
            middle = (low + high) // 2
            if any(_dominates(one, points[index]) for one in reversed(fronts[middle])):
                low = middle + 1
            else:
                high = middle
        if low == len(fronts):
            fronts.append([])
        fronts[low].append(points[index])
        found[index] = low
    return found


def front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other one dominates."""
    return [index for index, rank in enumerate(ranks(points)) if rank == 0]


def _dominates(one: Point, other: Point) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True)) and any(a > b for a, b in zip(one, other, strict=True))
