"""Early stopping of trials; the baseline always runs to its end."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from bgsweep.config import SweepConfig
from bgsweep.config.search import FrontOptions, scheduler_of_another_package
from bgsweep.sweep.events import Event, Result, replay
from bgsweep.sweep.fronts import FrontHalving
from bgsweep.sweep.searcher import FIXED, trial_name
from bgsweep.sweep.stopping_rule import StoppingRule
from bgsweep.sweep.trial_record import TrialRecord

IDLE = 5.0
"""Seconds after which an actor without a trial is ended; between two trials of a sweep it idles for less."""


@dataclass(frozen=True)
class _Named:
    """A trial as the schedulers need it: an id, here one that stays the same when the sweep is resumed."""

    trial_id: str


def _named(name: str) -> Any:
    return _Named(name)


class _Yielding(FIFOScheduler):
    """Ends an actor that Tune keeps although no trial needs it.

    Tune keeps one for the next trial. Where a sweep's share of the cluster has become smaller that trial does not come,
    and without this every sweep would hold a device more than it uses.
    """

    _idle_since: float | None = None

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        kept = getattr(getattr(tune_controller, "_actor_cache", None), "num_cached_objects", 0)
        now = time.monotonic()
        self._idle_since = (self._idle_since or now) if kept else None
        if self._idle_since is not None and now - self._idle_since > IDLE:
            tune_controller._cleanup_cached_actors(force_all=True)
            self._idle_since = None
        found: Trial | None = super().choose_trial_to_run(tune_controller)
        return found


class _KeepBaseline(_Yielding):
    """Compares trials with the baseline, but never stops the baseline itself.

    Tune gives a resumed trial a new id; under its name in the sweep the scheduler knows its earlier results.
    """

    epochs: int

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        super().on_trial_add(tune_controller, _named(trial_name(trial)))

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        decision: str = super().on_trial_result(tune_controller, _named(trial_name(trial)), result)
        if trial.config[FIXED] == "baseline" and result["epoch"] < self.epochs:
            return TrialScheduler.CONTINUE
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        super().on_trial_complete(tune_controller, _named(trial_name(trial)), result)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        super().on_trial_remove(tune_controller, _named(trial_name(trial)))

    def catch_up(self, past: Sequence[Event]) -> list[str]:
        """Learn what trials had measured before the driver died.

        Returns:
            The running trials that their last result should have stopped, had the driver lived to do it.
        """
        controller: Any = None
        rule: Any = super()
        to_stop: list[str] = []

        def decide(event: Result, record: TrialRecord) -> None:
            result = {"epoch": event.epoch, **event.metrics}
            decision = rule.on_trial_result(controller, _named(event.id), result)
            if decision == TrialScheduler.STOP and event.epoch < self.epochs and record.fixed != "baseline":
                to_stop.append(event.id)

        def end(record: TrialRecord) -> None:
            if record.status != "failed":
                result = {"epoch": record.epochs, **record.metrics}
                rule.on_trial_complete(controller, _named(record.id), result)

        records = replay(
            past,
            on_started=lambda record: rule.on_trial_add(controller, _named(record.id)),
            on_result=decide,
            on_ended=end,
        )
        return [name for name in to_stop if records[name].status == "running"]


class KeepBaselineASHA(_KeepBaseline, AsyncHyperBandScheduler):
    """Asynchronous successive halving (Li et al. 2020)."""


class _FrontScheduler(FIFOScheduler):
    """`FrontHalving` as a scheduler of Tune."""

    def __init__(self, rule: FrontHalving, signs: Mapping[str, int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._rule, self._signs = rule, signs

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if not self._signs.keys() <= result.keys():  # an epoch with a checkpoint and no evaluation
            return TrialScheduler.CONTINUE
        scores = [sign * result[metric] for metric, sign in self._signs.items()]
        stops = self._rule.stops(trial.trial_id, result["epoch"], scores)
        return TrialScheduler.STOP if stops else TrialScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        # As Tune calls it where a trial's last epoch is a rung.
        _FrontScheduler.on_trial_result(self, tune_controller, trial, result)


class KeepBaselineFronts(_KeepBaseline, _FrontScheduler):
    """Successive halving by several metrics (`bgsweep.sweep.fronts`)."""


class _RuleScheduler(FIFOScheduler):
    """A stopping rule of another package as a scheduler of Tune."""

    def __init__(self, rule: StoppingRule, metric: str, sign: int, grace: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._rule, self._metric, self._sign, self._grace = rule, metric, sign, grace
        self._last: dict[str, int] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """As of `PBTScheduler`: Tune's state file is not used, and a rule need not be one that can be pickled."""
        return FIFOScheduler, ()

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        epoch = result["epoch"]
        if self._metric not in result or epoch <= self._last.get(trial.trial_id, 0):  # after a restart
            return TrialScheduler.CONTINUE
        self._last[trial.trial_id] = epoch
        stops = self._rule.stops(trial.trial_id, epoch, self._sign * result[self._metric])
        return TrialScheduler.STOP if stops and epoch >= self._grace else TrialScheduler.CONTINUE


class KeepBaselineRule(_KeepBaseline, _RuleScheduler):
    """A stopping rule of another package (`bgsweep.sweep.stopping_rule`)."""


class _MedianScheduler(MedianStoppingRule):
    """Ray's rule, for trials that report again after it has stopped them, and for epochs that are reported twice."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        before = self._results[trial]
        if before and before[-1]["epoch"] >= result["epoch"]:  # after a restart; an epoch counts once
            return TrialScheduler.CONTINUE
        decision = super().on_trial_result(tune_controller, trial, result)
        # Ray asserts that none of these reports again. The baseline does, and so does a trial whose actor dies first.
        self._stopped_trials.clear()
        return decision


class KeepBaselineMedian(_KeepBaseline, _MedianScheduler):
    """Stops a trial whose best value lies below the median of the other trials' means so far (Golovin et al. 2017)."""


def build_scheduler(config: SweepConfig, past: Sequence[Event] = ()) -> tuple[TrialScheduler, list[str]]:
    """The configured scheduler (but for pbt, see `bgsweep.sweep.pbt`), which counts the epochs that trials report.

    Args:
        past: the events of earlier drivers.

    Returns:
        The scheduler, and the running trials that it stops at once.
    """
    search, epochs = config.search, config.experiment.training.epochs
    grace = min(search.grace_epochs, epochs)
    metric, sign = next(iter(search.signs.items()))
    # Not Tune's count of results, which starts again at 1 in a resumed sweep, so that rungs would be miscounted.
    shared: dict[str, Any] = {"time_attr": "epoch", "metric": metric, "mode": "max" if sign > 0 else "min"}
    scheduler: KeepBaselineASHA | KeepBaselineFronts | KeepBaselineMedian | KeepBaselineRule
    if search.scheduler == "asha" and len(search.metrics) > 1:
        spread = FrontOptions.model_validate(search.scheduler_options).spread
        scheduler = KeepBaselineFronts(FrontHalving(grace, epochs, search.reduction, spread), search.signs)
    elif search.scheduler == "asha":
        # With `stop_last_trials`, Ray's default, a trial that has passed a rung is judged at lower ones that it skipped
        # too, one each time that it reports. What it is named for has no effect: at its last epoch a trial is done.
        shared |= {"max_t": epochs, "grace_period": grace, "reduction_factor": search.reduction}
        scheduler = KeepBaselineASHA(**shared, stop_last_trials=False)
    elif search.scheduler == "median":
        # An endless time slice: a trial that cannot be compared with enough others continues instead of being paused.
        scheduler = KeepBaselineMedian(grace_period=grace, min_time_slice=math.inf, **shared)  # type: ignore[arg-type]
    elif search.stops_early:
        rule = scheduler_of_another_package(search.scheduler)(config)
        scheduler = KeepBaselineRule(rule, metric, sign, grace)
    else:
        return _Yielding(), []  # type: ignore[no-untyped-call]
    scheduler.epochs = epochs
    return scheduler, scheduler.catch_up(past)
