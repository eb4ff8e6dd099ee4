"""Trials of a sweep for the report page: curves and costs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Metrics = dict[str, float]

_HOUR = 3600


@dataclass
class Trial:
    """One trial: its values, its status, and its metrics at each epoch with an evaluation."""

    id: str
    params: dict[str, Any]
    fixed: str | None
    status: str = "running"
    epochs: int = 0
    seconds: float = 0.0
    curve: dict[int, Metrics] = field(default_factory=dict)
    error: str | None = None
    confirms: str | None = None  # a trial of the search, with other seeds

    @property
    def last(self) -> Metrics:
        """The last metrics; {} if there are none."""
        return self.curve[max(self.curve)] if self.curve else {}


@dataclass(frozen=True)
class Cost:
    """Hours of one core or GPU; ``saved``: the hours that stopped trials would have taken for their other epochs."""

    unit: str
    wall_hours: float
    spent: dict[str, float]
    saved: dict[str, float]


def common_epoch(trials: Sequence[Trial]) -> int | None:
    """The last epoch with metrics of at least half of the trials that have any; there trials are comparable."""
    measured = [trial for trial in trials if trial.curve]
    epochs = {epoch for trial in measured for epoch in trial.curve}
    shared = [epoch for epoch in epochs if 2 * sum(epoch in trial.curve for trial in measured) >= len(measured)]
    return max(shared, default=None)


def cost_of(trials: Sequence[Trial], wall_seconds: float, epochs: int, devices: tuple[float, float]) -> Cost:
    """The cost of the trials, and the saving by early stopping; ``devices``: cores and GPUs of one trial."""
    cores, gpus = devices
    share = (gpus or cores) / _HOUR
    stopped = [trial for trial in trials if trial.status == "stopped" and trial.epochs]
    return Cost(
        unit="GPU hours" if gpus else "core hours",
        wall_hours=wall_seconds / _HOUR,
        spent={trial.id: trial.seconds * share for trial in trials},
        saved={trial.id: trial.seconds * share * (epochs / trial.epochs - 1) for trial in stopped},
    )
