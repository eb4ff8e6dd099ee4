"""The choice of a sweep's winner, and of the trials that are trained again before it (`search.confirm`)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import mean

from bgsweep.config import Search, SweepConfig
from bgsweep.config.metric_names import shown_name
from bgsweep.sweep.pareto import best_of, pareto
from bgsweep.sweep.trial_names import confirmation_of, confirmed_by, is_confirmation
from bgsweep.sweep.trial_record import Metrics, TrialRecord

_SURE = 0.95  # one-sided


def searched(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The records without those of trials that confirm others."""
    return [record for record in records if not is_confirmation(record.id)]


def front(records: Iterable[TrialRecord], search: Search) -> list[TrialRecord]:
    """The search's completed trials that no other one dominates; over several seeds by their lower bounds."""
    own = {each.id: each for each in records}
    return [own[each.id] for each in pareto(_judged(own.values(), search), search.signs)]


def candidates(records: Iterable[TrialRecord], search: Search) -> list[TrialRecord]:
    """The trials that `search.confirm` trains again: the best of the search, the best first."""
    assert search.confirm is not None
    own = {each.id: each for each in records}
    left = _judged(own.values(), search)
    found: list[TrialRecord] = []
    while len(found) < search.confirm.top and (best := pareto(left, search.signs)):
        found.append(best_of(best, search.signs))
        left = [each for each in left if each is not found[-1]]
    return [own[each.id] for each in found]


def confirmed(records: Mapping[str, TrialRecord], search: Search) -> list[TrialRecord]:
    """The completed trials that confirm the search's best, in the order of these."""
    if search.confirm is None:
        return []
    found = (records.get(confirmation_of(each.id)) for each in candidates(records.values(), search))
    return [each for each in found if each and each.status == "completed"]


def winner(records: Mapping[str, TrialRecord], search: Search) -> TrialRecord | None:
    """The trial that may become champion; None if no trial ran to its end.

    Where trials were confirmed it is the best of these by the mean over the new seeds alone: what the search has seen
    of a trial chose it, and so overstates it. Else it is the best of the search, over several seeds by lower bounds, of
    the trials that still have a checkpoint: each trial that ends moves the bounds of all others, so that one that
    `search.keep_checkpoints` has passed over can come first later.
    """
    again = confirmed(records, search)
    if again:
        return best_of(pareto(again, search.signs), search.signs)
    judged = _judged(records.values(), search)
    best = pareto([each for each in judged if each.checkpoint] or judged, search.signs)
    return records[best_of(best, search.signs).id] if best else None


def cautious(records: Sequence[TrialRecord], search: Search) -> list[TrialRecord]:
    """Copies of records whose searched metrics are one-sided 95 % bounds of their means over `search.seeds` seeds.

    A trial's variance is taken half-way to the mean of all trials' (as Smyth 2004 does), with the degrees of freedom of
    both: of two or three seeds its own says little, and chosen by that alone the winner is the trial whose seeds agree
    by chance. In 4,000 simulated sweeps of 16 trials and 3 seeds such bounds lost more than twice as much as means.
    """
    if search.seeds == 1:
        return list(records)
    from scipy.stats import t as student  # here: `bgsweep status` must not wait for it

    found = [replace(record, metrics=dict(record.metrics)) for record in records]
    reach = float(student.ppf(_SURE, 2 * (search.seeds - 1)))
    for metric, sign in search.signs.items():
        known = [each.metrics for each in found if metric in each.metrics and f"{metric}_se" in each.metrics]
        if known:
            usual = mean(metrics[f"{metric}_se"] ** 2 for metrics in known)
            for metrics in known:
                metrics[metric] -= sign * reach * math.sqrt((metrics[f"{metric}_se"] ** 2 + usual) / 2)
    return found


def _judged(records: Iterable[TrialRecord], search: Search) -> list[TrialRecord]:
    """The search's completed trials as they are compared."""
    return cautious([each for each in searched(records) if each.status == "completed"], search)


def held_out(again: Sequence[TrialRecord], search: Search, seeds: Iterable[int]) -> Metrics:
    """For each searched metric the champion's value, free of the bias of having chosen it among those confirmed.

    Of each new seed the value of the trial that the other seeds would have chosen; then the mean over the seeds.
    """
    every = list(seeds)
    values: dict[str, list[float]] = {metric: [] for metric in search.metrics}
    for seed in every:
        others = [each for each in every if each != seed]
        without = [
            replace(one, metrics={name: mean(one.metrics[f"{name}/seed_{each}"] for each in others) for name in values})
            for one in again
        ]
        chosen = best_of(pareto(without, search.signs), search.signs).id
        own = next(one.metrics for one in again if one.id == chosen)
        for name, found in values.items():
            found.append(own[f"{name}/seed_{seed}"])
    return {shown_name(name): mean(found) for name, found in values.items()}


def seeds_of(config: SweepConfig, trial: str) -> int:
    """The number of seeds under which a trial is trained."""
    confirm = config.search.confirm
    return confirm.seeds if confirm and is_confirmation(trial) else config.search.seeds


def first_new_seed(config: SweepConfig) -> int:
    """The first of the seeds that the search has not used."""
    return config.experiment.seed + config.search.seeds


def confirmations(config: SweepConfig) -> int:
    """The number of trials that confirm others, at most: the best ones', and the baseline's."""
    search = config.search
    return search.confirm.top + search.baseline if search.confirm else 0


def comparison(record: TrialRecord, records: Mapping[str, TrialRecord], search: Search) -> dict[str, Metrics]:
    """For each searched metric of a trial that confirms another: its ``value``, ``se``, and what the search had."""
    before = records[confirmed_by(record.id)].metrics
    return {
        shown_name(metric): {
            "value": record.metrics[metric],
            "se": record.metrics[f"{metric}_se"],
            "searched": before[metric],
        }
        for metric in search.metrics
    }
