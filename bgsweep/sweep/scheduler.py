"""ASHA that lets the baseline run to its end."""

from collections.abc import Sequence
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

    def replay(self, events: Sequence[Event]) -> list[str]:
        """Fill the rungs with what trials had measured before the driver died.

        Returns:
            The trials that their last result should have stopped, had the driver lived to do it.
        """
        controller: Any = None
        baseline, doomed = "", []
        for event in events:
            if event["event"] == "started":
                super().on_trial_add(controller, _named(event["trial"]["id"]))
                baseline = event["trial"]["id"] if event["trial"]["fixed"] == "baseline" else baseline
            elif event["event"] == "result":
                result = {"epoch": event["epoch"], **event["metrics"]}
                decision = super().on_trial_result(controller, _named(event["id"]), result)
                if decision == TrialScheduler.STOP and event["epoch"] < self._max_t and event["id"] != baseline:
                    doomed.append(event["id"])
            elif event["event"] == "ended" and event["trial"]["status"] != "failed":
                trial = event["trial"]
                result = {"epoch": trial["epochs"], **trial["metrics"]}
                super().on_trial_complete(controller, _named(trial["id"]), result)
        ended = {event["trial"]["id"] for event in events if event["event"] == "ended"}
        return [name for name in doomed if name not in ended]


def build_scheduler(file: SweepFile, past: Sequence[Event] = ()) -> tuple[TrialScheduler, list[str]]:
    """The configured scheduler, counting in the epochs that the runs themselves report.

    ``past`` is what happened in the sweep before its driver died; beside the scheduler come the running trials that it
    stops at once.
    """
    search = file.search
    if search.scheduler == "none":
        return FIFOScheduler(), []
    scheduler = SparingASHA(
        time_attr="epoch",
        metric=search.metric,
        mode=search.mode,
        max_t=file.experiment.training.epochs,
        grace_period=min(search.grace_epochs, file.experiment.training.epochs),
        reduction_factor=search.reduction,
    )
    return scheduler, scheduler.replay(past)
