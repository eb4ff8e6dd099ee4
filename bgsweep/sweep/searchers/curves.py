"""The metrics to expect at the end of a trial that was stopped."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

Curve = Mapping[int, Sequence[float]]
"""A trial's metrics by epoch."""


def expected_end(curve: Curve, whole: Iterable[Curve]) -> list[float] | None:
    """A stopped trial's last metrics and the mean rise since that epoch of the trials that ran to their end.

    None where none of these was measured at that epoch: metrics of an early epoch compare with none of a late one.
    """
    epoch = max(curve)
    rises = [np.subtract(one[max(one)], one[epoch]) for one in whole if epoch in one]
    if not rises:
        return None
    return [float(each) for each in np.array(curve[epoch]) + np.mean(rises, axis=0)]
