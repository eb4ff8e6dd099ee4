"""The state of a sweep's trial, as the journal's events leave it."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, Self

from bgsweep.config.metric_names import with_new_names

Status = Literal["running", "completed", "stopped", "failed"]
Metrics = dict[str, float]


@dataclass(frozen=True)
class Exchange:
    """One trial of a population continues from a donor's weights, with new values."""

    id: str
    donor: str
    values: dict[str, Any]
    checkpoint: str
    digest: str = ""


@dataclass
class TrialRecord:
    """The state of one trial: its values, how far it has trained, its last metrics, and its MLflow run."""

    id: str
    params: dict[str, Any]
    fixed: str | None
    digest: str
    run_id: str
    status: Status = "running"
    epochs: int = 0
    metrics: Metrics = field(default_factory=dict)
    checkpoint: str | None = None
    failures: int = 0
    error: str | None = None
    waiting: str = ""
    seconds: float = 0.0
    began: float = field(default_factory=time.time, compare=False)
    lineage: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """The record that `public` has written, by this version or an older one; other keys are ignored."""
        names = {each.name for each in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in names})

    def shown(self) -> dict[str, Any]:
        """As `public`, for `--json`: metrics also under their present names."""
        return self.public() | {"metrics": with_new_names(self.metrics)}

    def public(self) -> dict[str, Any]:
        """The form that ``--json`` and the journal show."""
        shown = asdict(self)
        del shown["began"]
        return shown

    def copy(self) -> Self:
        """A record that can change without changing the event that this one belongs to."""
        return replace(self, lineage=list(self.lineage))

    def take_over(self, epoch: int, exchange: Exchange) -> None:
        """Continue, from the end of a generation on, with another trial's weights and new values."""
        step = {"epoch": epoch, "donor": exchange.donor, "before": self.params, "params": exchange.values}
        self.lineage.append(step)
        self.params, self.digest, self.checkpoint = exchange.values, exchange.digest, exchange.checkpoint
