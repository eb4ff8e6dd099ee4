"""ASHA that lets the baseline run to its end."""

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from bgsweep.config import SweepFile
from bgsweep.sweep.proposals import FIXED


class SparingASHA(AsyncHyperBandScheduler):
    """Asynchronous successive halving; trials compete with the baseline, but it is never stopped before its end."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        decision: str = super().on_trial_result(tune_controller, trial, result)
        if trial.config[FIXED] == "baseline" and result["epoch"] < self._max_t:
            return TrialScheduler.CONTINUE
        return decision


def build_scheduler(file: SweepFile) -> TrialScheduler:
    """The configured scheduler, counting in the epochs that the runs themselves report."""
    search = file.search
    if search.scheduler == "none":
        return FIFOScheduler()
    return SparingASHA(
        time_attr="epoch",
        metric=search.metric,
        mode=search.mode,
        max_t=file.experiment.training.epochs,
        grace_period=min(search.grace_epochs, file.experiment.training.epochs),
        reduction_factor=search.reduction,
    )
