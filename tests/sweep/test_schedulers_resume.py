"""The state of a scheduler after the driver's death."""

from bgsweep.config import resolve
from bgsweep.sweep.events import Ended, Event, Result, Started
from bgsweep.sweep.schedulers import build_scheduler
from bgsweep.sweep.trial_record import TrialRecord

FILE = resolve(
    {
        "experiment": {"background": {"remove": 0.3, "random": 0.2}, "training": {"epochs": 8}},
        "space": {"background.remove": {"uniform": [0.0, 0.8]}},
        "search": {"trials": 4, "grace_epochs": 2, "reduction": 2},
    }
)


def started(name: str, fixed: str | None = None) -> Event:
    return Started(trial=TrialRecord(name, {}, fixed, "", ""))


def result(name: str, epoch: int, score: float) -> Event:
    return Result(id=name, epoch=epoch, metrics={"knn_top1": score}, seconds=1.0)


def ended(name: str, epoch: int, score: float) -> Event:
    return Ended(trial=TrialRecord(name, {}, None, "", "", "stopped", epoch, {"knn_top1": score}))


def test_a_trial_whose_stop_the_driver_did_not_live_to_make_is_stopped_when_the_sweep_goes_on() -> None:
    past = [started("t00", "baseline"), result("t00", 2, 0.5), started("t01"), result("t01", 2, 0.1)]
    assert build_scheduler(FILE, past)[1] == ["t01"]
    assert build_scheduler(FILE, [*past, ended("t01", 2, 0.1)])[1] == []


def test_neither_the_baseline_nor_a_trial_ahead_is_stopped() -> None:
    past = [started("t00"), result("t00", 2, 0.5), started("t01", "baseline"), result("t01", 2, 0.1)]
    assert build_scheduler(FILE, [*past, started("t02"), result("t02", 2, 0.7)])[1] == []
