"""The effect of each searched parameter, as far as a sweep's trials can tell it, and in a sentence.

A range is cut into parts of equal width (of the logarithm, where it is searched so), and a regression gives the
metric's mean in each, the other parameters being equal. Parts, and what neighbouring ones join to, are compared by
intervals that hold for all comparisons together with 95 %: a wild bootstrap over trials of the largest t value (Wu
1986), with standard errors that allow each trial a noise of its own (HC3, MacKinnon and White 1985). The noise of a
trial contains that of its seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bgsweep.config import Distribution
from bgsweep.report.statistics import Interval, enough_for_importance

Values = npt.NDArray[np.float64]
Block = tuple[int, int]
"""First and last of neighbouring parts."""

# 0.96 and not 0.95: with it 24 clustered trials without effect told of one in 6 % of 300 simulated sweeps, else in 8 %.
_RESAMPLINGS, _SURE = 1000, 0.96
_PARTS = (3, 5)  # of a range
_PER_PART = 12  # trials: fewer parts are told apart more surely
_FEWEST = 6  # trials; a part with fewer joins its neighbour, an option with fewer is left out


@dataclass(frozen=True)
class Change:
    """Values at which the metric differs from that at the best ones, by how much, and the 95 % interval."""

    where: str
    value: float
    interval: Interval


@dataclass(frozen=True)
class Effect:
    """The effect of a parameter, as far as trials tell it.

    Attributes:
        best: the values that cannot be told from the best ones, as text, such as "between 0.1 and 0.3".
        single: `best` is one part, within which no difference was looked for.
        changes: where the metric is worse for sure; empty if nothing can be told.
        most: what the metrics of two parts differ by at most (95 %); None if the parameter was only changed together
            with others.
    """

    best: str
    single: bool
    changes: tuple[Change, ...]
    most: float | None


@dataclass(frozen=True)
class _Parts:
    """Parts of a range by their ends, or options, and the part of each trial, -1 of one that is left out."""

    ends: list[tuple[Any, Any]]
    member: npt.NDArray[np.int64]
    ordered: bool

    def words(self, block: Block) -> str:
        """Neighbouring parts as text."""
        low, high = map(_number, (self.ends[block[0]][0], self.ends[block[1]][1]))
        return f"at {low}" if low == high else f"between {low} and {high}"

    def beyond(self, block: Block) -> str:
        """Parts up to an end of the range as text."""
        low, high = self.ends[block[0]][0], self.ends[block[1]][1]
        whole = self.ends[0][0] != self.ends[0][1]
        if block[1] == len(self.ends) - 1:
            return f"above {_number(low)}" if whole else f"at {_number(low)}{' and more' if low != high else ''}"
        if block[0] == 0:
            return f"below {_number(high)}" if whole else f"at {_number(high)}{' and less' if low != high else ''}"
        return self.words(block)


def _number(value: float) -> str:
    return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"  # a queue of 4096, not 4.1e+03


def within(space: Mapping[str, Distribution], point: Mapping[str, Any]) -> bool:
    """True if a trial's values lie in the space; a baseline may lie outside, or lack the parts of a schedule."""
    return all(key in point and one.contains(point[key]) for key, one in space.items())


def effect(
    key: str,
    space: Mapping[str, Distribution],
    points: Sequence[Mapping[str, Any]],
    values: Sequence[float],
    sign: int = 1,
) -> Effect | None:
    """The effect of a parameter on a metric.

    Args:
        space: the parameters that all trials have, by key.
        points: the trials' values. Trials outside the space, such as some baselines, are left out.
        values: the metric of each trial.
        sign: 1 if higher is better, -1 if lower is.

    Returns:
        None where there are too few trials, or values that were tried often enough.
    """
    rows = np.flatnonzero([within(space, each) for each in points]).tolist()
    parts = _parts(space[key], [points[index][key] for index in rows]) if rows else None
    if parts is None or len(parts.ends) < 2:
        return None
    kept = np.flatnonzero(parts.member >= 0)
    if enough_for_importance(len(kept), len(space)):
        return None
    member, rows = parts.member[kept], [rows[index] for index in kept]
    others = [_columns(one, [points[index][k] for index in rows]) for k, one in space.items() if k != key]
    design = np.hstack([np.eye(len(parts.ends))[member], *others])
    found = _Comparisons(design, np.array([values[index] for index in rows], np.float64), member, parts.ordered)
    return _of_range(parts, found, sign) if parts.ordered else _of_options(parts, found, sign)


def sentence(key: str, label: str, one: Effect, share: bool) -> str:
    """An effect in words; a ``share`` is told in points."""

    def shown(value: float) -> str:
        return f"{100 * value:.1f}" if share else f"{value:.3g}"

    unit = " points" if share else ""
    if one.most is None and not one.changes:
        return f"Of {key} nothing can be told: it was not changed apart from other parameters."
    if not one.changes:
        return (
            f"Of {key} nothing can be told (95 %): {label} differs by no more than the noise between trials, and by at "
            f"most {shown(one.most or 0)}{unit}."
        )
    start = one.best[0].upper() + one.best[1:]
    start = f"{start} of {key} " + (
        f"{label} is best" if one.single else f"no difference of {label} can be told (95 %)"
    )
    rest = []
    for each in one.changes:
        low, high = sorted(map(abs, each.interval))
        way = "higher" if each.value > 0 else "lower"
        rest.append(f"{each.where} it is {way} by {shown(abs(each.value))}{unit} [{shown(low)}, {shown(high)}]")
    return f"{start}; {', '.join(rest)}."


def _parts(one: Distribution, tried: Sequence[Any]) -> _Parts:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in tried)
    count = min(max(len(tried) // _PER_PART, _PARTS[0]), _PARTS[1])
    if numbers and (one.bounds is None or len(set(tried)) <= count):
        every = sorted(set(tried))
        return _joined([(each, each) for each in every], [every.index(each) for each in tried])
    if one.bounds is None:
        names = list(dict.fromkeys(map(str, tried)))
        often = [name for name in names if sum(str(each) == name for each in tried) >= _FEWEST]
        member = [often.index(str(each)) if str(each) in often else -1 for each in tried]
        return _Parts([(name, name) for name in often], np.array(member), ordered=False)
    edges = np.geomspace(*one.bounds, count + 1) if one.loguniform else np.linspace(*one.bounds, count + 1)
    member = list(np.clip(np.searchsorted(edges, tried, side="right") - 1, 0, count - 1))
    return _joined(list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)), member)


def _joined(ends: list[tuple[Any, Any]], member: list[int]) -> _Parts:
    """Parts with few trials joined to the next one, the last to the one before."""
    counts = np.bincount(member, minlength=len(ends)).tolist()
    joined: list[list[int]] = [[]]
    for index in range(len(ends)):
        joined[-1].append(index)
        if sum(counts[each] for each in joined[-1]) >= _FEWEST:
            joined.append([])
    rest = joined.pop()
    if joined:
        joined[-1] += rest
    place = {old: new for new, each in enumerate(joined) for old in each}
    every = [(ends[each[0]][0], ends[each[-1]][1]) for each in joined]
    return _Parts(every, np.array([place[each] for each in member]) if joined else np.array(member), ordered=True)


def _columns(one: Distribution, tried: Sequence[Any]) -> Values:
    """A parameter that is not looked at, for the regression: a number and its square, or each option but the first."""
    if one.bounds is None:
        names = [str(each) for each in tried]
        return np.array([[name == other for other in sorted(set(names))[1:]] for name in names], np.float64)
    numbers = np.log(tried) if one.loguniform else np.asarray(tried, np.float64)
    spread = float(numbers.std()) or 1.0
    scaled = (numbers - numbers.mean()) / spread
    return np.stack([scaled, scaled**2], axis=1)


class _Comparisons:
    """Differences between all blocks of neighbouring parts, or all pairs of options, with common intervals.

    Attributes:
        means: of the parts, other parameters being equal.
    """

    def __init__(self, design: Values, values: Values, member: npt.NDArray[np.int64], ordered: bool) -> None:
        inverse: Values = np.asarray(np.linalg.pinv(design), np.float64)
        count = int(member.max()) + 1
        self.means = (inverse @ values)[:count]
        sizes = np.bincount(member, minlength=count)
        blocks = [(i, j) for i in range(count) for j in range(i, count if ordered else i + 1)]
        self._pairs = [(one, other) for one in blocks for other in blocks if one[1] < other[0]]
        wanted = np.zeros((len(self._pairs), design.shape[1]))
        for row, pair in zip(wanted, self._pairs, strict=True):
            for block, way in zip(pair, (-1, 1), strict=True):
                own = slice(block[0], block[1] + 1)
                row[own] = way * sizes[own] / sizes[own].sum()
        # Where parameters were only changed together, a difference may be that of either: nothing is told of it.
        known = np.abs(wanted - wanted @ inverse @ design).max(1) < 1e-8
        weights = wanted @ inverse
        self._value = weights @ values
        self._half = np.full(len(known), np.inf)
        if known.any():
            self._half[known] = _half_widths(design, inverse, values, weights[known])

    def interval(self, one: Block, other: Block) -> tuple[float, Interval]:
        """The mean of ``other`` less that of ``one``, and the interval."""
        if other < one:
            value, (low, high) = self.interval(other, one)
            return -value, (-high, -low)
        index = self._pairs.index((one, other))
        value, half = float(self._value[index]), float(self._half[index])
        return value, (value - half, value + half)

    def sure(self, one: Block, other: Block) -> bool:
        """True if the two differ for sure."""
        low, high = self.interval(one, other)[1]
        return low > 0 or high < 0

    def most(self) -> float | None:
        """The difference of two parts at most; None if one is not known."""
        single = [i for i, (one, other) in enumerate(self._pairs) if one[0] == one[1] and other[0] == other[1]]
        found = float(max(abs(self._value[i]) + self._half[i] for i in single))
        return found if np.isfinite(found) else None


def _half_widths(design: Values, inverse: Values, values: Values, weights: Values) -> Values:
    """Half the common intervals' widths of ``weights @ values``."""
    hat = design @ inverse
    rest = np.eye(len(values)) - hat
    own = np.maximum(1 - np.diag(hat), 1e-6)
    residuals = rest @ values / own
    errors = np.sqrt(weights**2 @ residuals**2)
    # As if there were no effect: residuals with random signs.
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (len(values), _RESAMPLINGS))
    again = residuals[:, None] * signs
    errors_again = np.sqrt(weights**2 @ (rest @ again / own[:, None]) ** 2)
    largest = (np.abs(weights @ again) / np.maximum(errors_again, 1e-300)).max(0)
    found: Values = float(np.quantile(largest, _SURE)) * errors
    return found


def _of_range(parts: _Parts, found: _Comparisons, sign: int) -> Effect:
    last = len(parts.ends) - 1
    best = int((sign * found.means).argmax())
    low = high = best
    while low > 0 and not found.sure((best, best), (low - 1, low - 1)):
        low -= 1
    while high < last and not found.sure((best, best), (high + 1, high + 1)):
        high += 1
    sides = [[(start, low - 1) for start in range(low)], [(high + 1, end) for end in range(last, high, -1)]]
    changes = []
    for blocks in sides:  # the longest of each side that differs for sure
        for block in blocks:
            if found.sure((low, high), block):
                value, interval = found.interval((low, high), block)
                changes.append(Change(parts.beyond(block), value, interval))
                break
    return Effect(parts.words((low, high)), low == high, tuple(changes), found.most())


def _of_options(parts: _Parts, found: _Comparisons, sign: int) -> Effect:
    best = int((sign * found.means).argmax())
    worse = [other for other in range(len(parts.ends)) if other != best and found.sure((best, best), (other, other))]
    changes = tuple(
        Change(f"with {parts.ends[other][0]}", *found.interval((best, best), (other, other))) for other in worse
    )
    like = [str(parts.ends[other][0]) for other in range(len(parts.ends)) if other not in worse]
    return Effect(f"with {' or '.join(like)}", len(like) == 1, changes, found.most())
