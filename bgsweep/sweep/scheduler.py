"""ASHA that lets the baseline run to its end."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from bgsweep.config import SweepFile
from bgsweep.sweep.journal import Event
from bgsweep.sweep.proposals import FIXED, trial_name


def _named(name: str) -> Any:
    """All that ASHA asks of a trial: an id, here one that outlives the driver."""
    return SimpleNamespace(trial_id=name)


class SparingASHA(AsyncHyperBandScheduler):
    """Asynchronous successive halving; trials compete with the baseline, but it is never stopped before its end.

    Trials go by their sweep's own names, so that one that a resumed sweep goes on with is known at the rungs that it
    has passed.
    """

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        super().on_trial_add(tune_controller, _named(trial_name(trial)))

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        decision: str = super().on_trial_result(tune_controller, _named(trial_name(trial)), result)
        if trial.config[FIXED] == "baseline" and result["epoch"] < self._max_t:
            return TrialScheduler.CONTINUE
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        super().on_trial_complete(tune_controller, _named(trial_name(trial)), result)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        super().on_trial_remove(tune_controller, _named(trial_name(trial)))

    def replay(self, events: Iterable[Event]) -> None:
        """Fill the rungs with what trials had measured before the driver died."""
        controller: Any = None
        for event in events:
            if event["event"] == "started":
                super().on_trial_add(controller, _named(event["trial"]["id"]))
            elif event["event"] == "result":
                super().on_trial_result(controller, _named(event["id"]), {"epoch": event["epoch"], **event["metrics"]})
            elif event["event"] == "ended" and event["trial"]["status"] != "failed":
                trial = event["trial"]
                super().on_trial_complete(
                    controller, _named(trial["id"]), {"epoch": trial["epochs"], **trial["metrics"]}
                )


def build_scheduler(file: SweepFile, past: Iterable[Event] = ()) -> TrialScheduler:
    """The configured scheduler, counting in the epochs that the runs themselves report.

    ``past`` is what happened in the sweep before its driver died.
    """
    search = file.search
    if search.scheduler == "none":
        return FIFOScheduler()
    scheduler = SparingASHA(
        time_attr="epoch",
        metric=search.metrics[0],
        mode=str(search.mode),
        max_t=file.experiment.training.epochs,
        grace_period=min(search.grace_epochs, file.experiment.training.epochs),
        reduction_factor=search.reduction,
    )
    scheduler.replay(past)
    return scheduler
