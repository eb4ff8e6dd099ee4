"""The events of a sweep's journal, one class each, and the replay that turns them back into the trials' records."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal

from bgsweep.sweep.trial_names import is_confirmation
from bgsweep.sweep.trial_record import Exchange, Metrics, TrialRecord


@dataclass(frozen=True, kw_only=True)
class Event:
    """A line of the journal; ``kind`` is its name there."""

    kind: ClassVar[str]
    time: float = field(default_factory=time.time)

    def public(self) -> dict[str, Any]:
        """The event as plain values, with its time first: by that a reader knows a torn line from a damaged one."""
        values = {each.name: _plain(getattr(self, each.name)) for each in fields(self)}
        return {"time": values.pop("time"), "event": self.kind, **values}


@dataclass(frozen=True, kw_only=True)
class Owned(Event):
    """A driver has taken the sweep over.

    Attributes:
        token: of its claim.
        after: bytes of each earlier part of the journal that count; what another driver adds later does not.
        trials: `search.trials` at that time. A searcher may depend on it, and it can be raised when a sweep is resumed.
    """

    kind = "owned"
    token: int
    after: dict[str, int] = field(default_factory=dict)
    trials: int | None = None


@dataclass(frozen=True, kw_only=True)
class Proposed(Event):
    """The searcher has drawn a trial's values; the trial itself may start much later."""

    kind = "proposed"
    id: str
    values: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Learned(Event):
    """The searcher has been told a trial, ``source``, of an earlier sweep (`search.warm_start`)."""

    kind = "learned"
    sweep: str
    source: str
    values: dict[str, Any]
    status: Literal["completed", "stopped"]
    metrics: Metrics


@dataclass(frozen=True, kw_only=True)
class Retried(Event):
    """A trial that had failed for good runs again, from its last checkpoint."""

    kind = "retried"
    id: str

    def apply(self, record: TrialRecord) -> None:
        """Bring the trial's record up to date."""
        record.status, record.failures, record.error = "running", 0, None


@dataclass(frozen=True, kw_only=True)
class Started(Event):
    """A trial has an MLflow run and is about to train."""

    kind = "started"
    trial: TrialRecord


@dataclass(frozen=True, kw_only=True)
class Ended(Event):
    """A trial has completed, or was stopped, or failed for good."""

    kind = "ended"
    trial: TrialRecord


@dataclass(frozen=True, kw_only=True)
class Result(Event):
    """A trial has reported: its metrics at an epoch, and in ``history`` all epochs since its last report.

    ``checkpoint`` and ``run_id`` are written only where they have changed: most of a long sweep's journal is results.
    """

    kind = "result"
    id: str
    epoch: int
    metrics: Metrics
    seconds: float
    checkpoint: str | None = None
    run_id: str = ""
    history: Sequence[Metrics] = ()

    def public(self) -> dict[str, Any]:
        """As of every event, without what is empty or repeats the end of ``history``."""
        shown = super().public() | {"seconds": round(self.seconds, 3)}
        if self.history and self.history[-1] == {"epoch": self.epoch, **self.metrics}:
            del shown["metrics"]
        return {key: value for key, value in shown.items() if value or key in ("time", "metrics", "epoch")}

    def apply(self, record: TrialRecord) -> None:
        """Bring the trial's record up to date."""
        # An epoch without an evaluation has its loss alone; the values of the last evaluation stay beside it.
        record.epochs, record.metrics, record.seconds = self.epoch, record.metrics | self.metrics, self.seconds
        record.checkpoint = self.checkpoint or record.checkpoint
        record.run_id = self.run_id or record.run_id


@dataclass(frozen=True, kw_only=True)
class Checkpointed(Event):
    """A trial has written a checkpoint, whose folder is ``path``."""

    kind = "checkpoint"
    id: str
    path: str

    def apply(self, record: TrialRecord) -> None:
        """Bring the trial's record up to date."""
        record.checkpoint = self.path


@dataclass(frozen=True, kw_only=True)
class Collected(Event):
    """A trial's checkpoint is about to be removed: others are better (`search.keep_checkpoints`)."""

    kind = "collected"
    id: str

    def apply(self, record: TrialRecord) -> None:
        """Bring the trial's record up to date."""
        record.checkpoint = None


@dataclass(frozen=True, kw_only=True)
class Recovered(Event):
    """A trial has failed and continues from its last checkpoint."""

    kind = "recovered"
    id: str
    failures: int
    error: str | None

    def apply(self, record: TrialRecord) -> None:
        """Bring the trial's record up to date."""
        record.failures, record.error, record.waiting = self.failures, self.error, ""


@dataclass(frozen=True, kw_only=True)
class Waits(Event):
    """A trial waits for nodes, for a ``reason``; without one it goes on."""

    kind = "waits"
    id: str
    reason: str

    def apply(self, record: TrialRecord) -> None:
        """Bring the trial's record up to date."""
        record.waiting = self.reason


@dataclass(frozen=True, kw_only=True)
class Generation(Event):
    """A population has come to the end of a generation, at ``epoch``."""

    kind = "generation"
    epoch: int
    exchanges: Sequence[Exchange]

    def apply(self, records: Mapping[str, TrialRecord]) -> None:
        """Bring the trials' records up to date."""
        for exchange in self.exchanges:
            records[exchange.id].take_over(self.epoch, exchange)


_KINDS: dict[str, type[Event]] = {
    each.kind: each
    for each in (
        *(Owned, Proposed, Learned, Started, Ended, Result),
        *(Checkpointed, Collected, Recovered, Retried, Waits, Generation),
    )
}
_NAMES = {kind: [each.name for each in fields(kind)] for kind in _KINDS.values()}  # a journal has 200,000 events
_READERS: dict[str, Callable[[Any], Any]] = {
    "trial": TrialRecord.read,
    "exchanges": lambda told: [Exchange(**each) for each in told],
}


def read_event(told: Any) -> Event | None:
    """The event in a decoded line of a journal; None for a kind that this version does not know, or what is missing."""
    kind = _KINDS.get(str(told.get("event"))) if isinstance(told, dict) else None
    if kind is None:
        return None
    values = {name: told[name] for name in _NAMES[kind] if name in told}
    try:
        if kind is Result:
            values.setdefault("seconds", 0.0)
            values.setdefault(
                "metrics", {key: each for key, each in (values.get("history") or [{}])[-1].items() if key != "epoch"}
            )
        return kind(**{key: _READERS[key](value) if key in _READERS else value for key, value in values.items()})
    except (TypeError, AttributeError):
        return None


def trials_in(event: Event) -> set[str]:
    """Names of the trials that must have started before an event makes sense."""
    if isinstance(event, Result | Checkpointed | Collected | Recovered | Retried | Waits):
        return {event.id}
    return {exchange.id for exchange in event.exchanges} if isinstance(event, Generation) else set()


def _ignore(*_: Any) -> None:
    """Default of `replay`'s callbacks."""


def replay(
    events: Iterable[Event],
    *,
    on_proposed: Callable[[Proposed], None] = _ignore,
    on_started: Callable[[TrialRecord], None] = _ignore,
    on_result: Callable[[Result, TrialRecord], None] = _ignore,
    on_ended: Callable[[TrialRecord], None] = _ignore,
    on_generation: Callable[[Generation], None] = _ignore,
    on_learned: Callable[[Learned], None] = _ignore,
    on_retried: Callable[[TrialRecord], None] = _ignore,
    records: dict[str, TrialRecord] | None = None,
) -> dict[str, TrialRecord]:
    """The trials' records, by id, as the events left them; ``records`` are those before the first event.

    The callbacks follow the events in their order, for those whose state depends on it (an Optuna sampler, the rungs of
    successive halving); each is called with the record already up to date.
    """
    records = {} if records is None else records
    for event in events:
        match event:
            case Proposed():
                on_proposed(event)
            case Learned():
                on_learned(event)
            case Retried():
                event.apply(records[event.id])
                on_retried(records[event.id])
            case Started(trial=trial):
                records[trial.id] = trial.copy()
                on_started(records[trial.id])
            case Ended(trial=trial):
                records[trial.id] = trial.copy()
                on_ended(records[trial.id])
            case Result():
                event.apply(records[event.id])
                on_result(event, records[event.id])
            case Checkpointed() | Collected() | Recovered() | Waits():
                event.apply(records[event.id])
            case Generation():
                event.apply(records)
                on_generation(event)
    return records


def of_search(events: Iterable[Event]) -> list[Event]:
    """The events without those of trials that confirm others, of which neither searcher nor scheduler learn."""
    return [event for event in events if not is_confirmation(_trial_of(event))]


def _trial_of(event: Event) -> str:
    if isinstance(event, Started | Ended):
        return event.trial.id
    return str(getattr(event, "id", ""))


def _plain(value: Any) -> Any:
    if isinstance(value, TrialRecord):
        return value.public()
    if isinstance(value, list | tuple):
        return [asdict(each) if isinstance(each, Exchange) else each for each in value]
    return value
