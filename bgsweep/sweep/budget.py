"""The budget of a sweep: what it has spent, and whether another trial can end within it."""

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

from bgsweep.config import Budget, SweepConfig
from bgsweep.errors import UserError
from bgsweep.sweep.events import Event, Owned
from bgsweep.sweep.selection import confirmations, seeds_of
from bgsweep.sweep.trial_record import TrialRecord

_HOUR = 3600.0
_UNITS = {"hours": "hours", "gpu_hours": "GPU-hours", "cost": "of costs"}


class BudgetGuard:
    """Says whether another trial may begin.

    A trial is expected to train all its epochs, at the speed of the epochs so far; before the first measured epoch it
    may begin. What is running goes on. Until the search ends, room is left for the trials of `search.confirm`.

    Args:
        gpus: GPUs of one trial.
        ran: seconds for which earlier drivers of the sweep have run.
        records: the trials' records, which the caller keeps up to date.
        at_once: trials that the cluster runs at a time.
    """

    def __init__(
        self, config: SweepConfig, gpus: float, ran: float, records: Mapping[str, TrialRecord], at_once: int = 1
    ) -> None:
        self.budget, self.gpus, self.ran = config.search.budget, gpus, ran
        self.since = time.time()
        self._epochs, self._records = config.experiment.training.epochs, records
        self._config, self._at_once = config, max(1, min(at_once, config.search.concurrent or at_once))

    def manifest(self) -> dict[str, float]:
        """The values from which `status` tells what is spent in another process."""
        return {"ran": self.ran, "since": self.since, "gpus": self.gpus}

    def told(self) -> str:
        """The part of the budget that is spent, in one line; empty without one."""
        used = costs(self.budget, self.ran + time.time() - self.since, self._records.values(), self.gpus)
        return shown(used, self.budget.limits)

    def refusal(self, begun: Collection[str], confirming: bool = False) -> str:
        """The limit that another trial would exceed, empty if there is none.

        Args:
            begun: trials that have not ended.
            confirming: the other trial confirms one of the search.
        """
        records, seeds = list(self._records.values()), partial(seeds_of, self._config)
        trained = sum(record.epochs * seeds(record.id) for record in records)
        epoch = sum(record.seconds for record in records if record.epochs) / trained if trained else 0.0
        whole, again = (self._epochs * epoch * seeds(name) for name in ("t", "c"))
        ahead = sum((self._epochs - self._done(name)) * epoch * seeds(name) for name in begun)
        if confirming:
            whole, later = again, 0
        else:
            later = confirmations(self._config)
        seconds = self.ran + time.time() - self.since + whole + math.ceil(later / self._at_once) * again
        expected = costs(self.budget, seconds, records, self.gpus, ahead + whole + later * again)
        over = [key for key, limit in self.budget.limits.items() if expected[key] > limit]
        return f"search.budget.{over[0]}: {self.budget.limits[over[0]]:g}" if over else ""

    def _done(self, name: str) -> int:
        return self._records[name].epochs if name in self._records else 0


def check_budget(budget: Budget, gpus: float) -> None:
    """Raise UserError for a limit of GPU-hours or costs where a trial has no GPU."""
    key = next((key for key in ("gpu_hours", "cost") if key in budget.limits), None)
    if key and not gpus:
        raise UserError(f"search.budget.{key}: limits nothing, since the trials have no GPU; use search.budget.hours")


def costs(
    budget: Budget, seconds: float, records: Iterable[TrialRecord], gpus: float, more: float = 0.0
) -> dict[str, float]:
    """The costs of a sweep that has run for some seconds, by the names of its limits.

    Args:
        gpus: GPUs of one trial.
        more: seconds of trials beside those of the records.
    """
    gpu_hours = gpus * (sum(record.seconds for record in list(records)) + more) / _HOUR
    found = {"hours": seconds / _HOUR, "gpu_hours": gpu_hours, "cost": gpu_hours * (budget.price_per_gpu_hour or 0.0)}
    return {key: found[key] for key in budget.limits}


def status(
    manifest: Mapping[str, Any], seconds: Callable[[], float] | None, records: Iterable[TrialRecord]
) -> dict[str, Any] | None:
    """The limits of a sweep, what is spent of each, and both ``told`` in one line; None without limits.

    Args:
        seconds: tells for how long its drivers have run, and is asked only where there are limits; None: until now,
            since the manifest was written.
    """
    budget = Budget.model_validate(manifest["file"].get("search", {}).get("budget", {}))
    if not budget.limits:
        return None
    told = manifest["budget"]
    ran = told["ran"] + time.time() - told["since"] if seconds is None else seconds()
    used = costs(budget, ran, records, told["gpus"])
    return {"limits": budget.limits, "spent": used, "told": shown(used, budget.limits)}


def shown(spent: Mapping[str, float], limits: Mapping[str, float]) -> str:
    """E.g. `budget: 1.5 of 24 hours, 12 of 96 GPU-hours`; empty without limits."""
    parts = [f"{spent[key]:.3g} of {limit:g} {_UNITS[key]}" for key, limit in limits.items()]
    return f"budget: {', '.join(parts)}" if parts else ""


def seconds_of(past: Iterable[Event]) -> float:
    """Seconds for which the drivers of a journal's events ran, each from its first event to its last."""
    total, first, last = 0.0, None, 0.0
    for event in past:
        if first is None or isinstance(event, Owned):
            total, first = total + (last - first if first is not None else 0.0), event.time
        last = event.time
    return total + (last - first if first is not None else 0.0)
