"""The best trial by one metric or by several, and the Pareto front."""

import math
from collections.abc import Mapping, Sequence

from bgsweep.report import dominance
from bgsweep.sweep.trial_record import TrialRecord


def pareto(records: Sequence[TrialRecord], signs: Mapping[str, int]) -> list[TrialRecord]:
    """The completed trials that no other one dominates: at least as good in all metrics, and better in one.

    ``signs`` has 1 for each metric to maximise and -1 for each to minimise.
    """
    ended = [each for each in records if each.status == "completed" and signs.keys() <= each.metrics.keys()]
    scores = [[sign * each.metrics[metric] for metric, sign in signs.items()] for each in ended]
    return [ended[index] for index in dominance.front(scores)]


def best_of(front: Sequence[TrialRecord], signs: Mapping[str, int]) -> TrialRecord:
    """The trial of the front that is nearest to the best value of every metric, each scaled to its range on the front.

    Of equally near ones it is the better by the first metric; then the earlier one.
    """
    ranges = {metric: [each.metrics[metric] for each in front] for metric in signs}

    def distance(record: TrialRecord) -> float:
        lost = []
        for metric, sign in signs.items():
            # Scaled, because an accuracy and a loss have no common unit.
            low, high = min(ranges[metric]), max(ranges[metric])
            ideal = high if sign > 0 else low
            lost.append(abs(ideal - record.metrics[metric]) / (high - low) if high > low else 0.0)
        return math.hypot(*lost)

    first, sign = next(iter(signs.items()))
    return min(front, key=lambda record: (round(distance(record), 9), -sign * record.metrics[first]))
