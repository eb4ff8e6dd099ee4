"""A sweep's journal as the page needs it: each trial with its curve, and what it cost."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Metrics = dict[str, float]

_HOUR = 3600


@dataclass
class Trial:
    """One trial: its values, its fate, and what was measured at each epoch at which it was looked at."""

    id: str
    params: dict[str, Any]
    fixed: str | None
    status: str = "running"
    epochs: int = 0
    seconds: float = 0.0
    curve: dict[int, Metrics] = field(default_factory=dict)
    error: str | None = None

    @property
    def last(self) -> Metrics:
        """What was measured last; {} where nothing was."""
        return self.curve[max(self.curve)] if self.curve else {}


@dataclass(frozen=True)
class Cost:
    """Hours of one core or GPU; `saved` is what stopped trials would have taken at the pace that they had."""

    unit: str
    wall_hours: float
    spent: dict[str, float]
    saved: dict[str, float]


def trials_of(events: Iterable[dict[str, Any]]) -> list[Trial]:
    """The trials of a journal's events, by their ids; epochs repeated after a failure count once."""
    found: dict[str, Trial] = {}
    for event in events:
        if "trial" in event:  # started or ended
            told = event["trial"]
            found.setdefault(told["id"], Trial(told["id"], told["params"], told["fixed"]))
        if event["event"] == "result":
            trial = found[event["id"]]
            trial.epochs, trial.seconds = event["epoch"], event["seconds"]
            trial.curve[event["epoch"]] = event["metrics"]
        elif event["event"] == "ended":
            trial = found[told["id"]]
            trial.status, trial.error, trial.params = told["status"], told["error"], told["params"]
    return [found[name] for name in sorted(found, key=lambda name: (len(name), name))]  # t99 before t100


def common_epoch(trials: Sequence[Trial]) -> int | None:
    """The last epoch at which at least half of the trials with any result were looked at: there all are comparable."""
    measured = [trial for trial in trials if trial.curve]
    epochs = {epoch for trial in measured for epoch in trial.curve}
    shared = [epoch for epoch in epochs if 2 * sum(epoch in trial.curve for trial in measured) >= len(measured)]
    return max(shared, default=None)


def cost_of(
    trials: Sequence[Trial], events: Sequence[dict[str, Any]], epochs: int, devices: tuple[float, float]
) -> Cost:
    """What the trials took, and what ending some before ``epochs`` saved; ``devices``: cores and GPUs of one trial."""
    cores, gpus = devices
    share = (gpus or cores) / _HOUR
    stopped = [trial for trial in trials if trial.status == "stopped" and trial.epochs]
    return Cost(
        unit="GPU hours" if gpus else "core hours",
        wall_hours=(events[-1]["time"] - events[0]["time"]) / _HOUR if events else 0.0,
        spent={trial.id: trial.seconds * share for trial in trials},
        saved={trial.id: trial.seconds * share * (epochs / trial.epochs - 1) for trial in stopped},
    )
