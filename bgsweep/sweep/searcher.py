"""The values of the next trial, for Ray Tune: fixed points first, then those that the configured searcher proposes."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

from ray.tune.search import Searcher

from bgsweep.config import SweepConfig
from bgsweep.config.schedule import as_json, same
from bgsweep.sweep.events import Event, Learned, Owned, Proposed, replay
from bgsweep.sweep.journal import Journal
from bgsweep.sweep.searchers import searcher_class
from bgsweep.sweep.trial_names import confirmation_of
from bgsweep.sweep.trial_record import TrialRecord

_log = logging.getLogger(__name__)

VALUES, FIXED, NUMBER, CHECKPOINT, EPOCHS = "values", "fixed", "number", "checkpoint", "epochs"
CONFIRMS = "confirms"


class TuneSearcher(Searcher):
    """The sweep's fixed points and then its `TrialSearcher`, behind Ray Tune's interface of a searcher.

    A trial's configuration is ``{"values": {dotted key: value}, "fixed": name or None, "number": n, "checkpoint": path
    or None, "epochs": those that the journal has}``. The `TrialSearcher` learns from fixed points that lie inside the
    space, too.

    Args:
        past: the events of earlier drivers. They are repeated in their order, so that the searcher proposes what it
            would have proposed without the interruption; the trials that had not ended are proposed first. Where it
            would draw other values today, the journal's count.
        refuse: called with each configuration whose values no trial can have, and the reason; the next one is proposed
            instead. Without it such values are proposed like others.
        limit: given the trials that have not ended, the reason for which none may begin beside them, empty if one may.

    Attributes:
        over: the reason for which the last proposal was withheld; empty if it was not.
    """

    def __init__(
        self,
        config: SweepConfig,
        past: Sequence[Event] = (),
        journal: Journal | None = None,
        refuse: Callable[[dict[str, Any], str], None] | None = None,
        limit: Callable[[Collection[str]], str] = lambda begun: "",
    ) -> None:
        super().__init__(None, None)  # Tune's own bookkeeping supports one metric only
        self.config = config
        self.journal = journal
        self._refuse = refuse
        self._limit = limit
        self.over = ""
        self.begun: set[str] = set()
        self._points = fixed_points(config)
        self._searcher = searcher_class(config)(_as_planned(config, past))
        self._reported: dict[str, int] = {}
        self._given = 0
        self._names: dict[str, str] = {}
        self._unfinished = self._replay(past)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is a str
        if not self._unfinished and self._given < total_trials(self.config):
            self.over = self._limit(self.begun)
            if self.over:  # those that run may end earlier than expected, which leaves room for others
                return None if self.begun else Searcher.FINISHED
        while (found := self._unfinished.pop(0) if self._unfinished else self._proposed()) is not None:
            self._names[trial_id] = name_of(found[NUMBER])
            self.begun.add(self._names[trial_id])
            reason = self.config.refusal(found[VALUES]) if self._refuse else ""
            if not (self._refuse and reason):
                return found
            self._refuse(found, reason)
            self._tell(self._names[trial_id], None)
        return Searcher.FINISHED

    def _proposed(self) -> dict[str, Any] | None:
        found = self._next()
        if found is not None and self.journal is not None:
            self.journal.write(Proposed(id=name_of(found[NUMBER]), values=found[VALUES]))
        return found

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._report(self._names[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._tell(self._names[trial_id], None if error else result)

    def _next(self) -> dict[str, Any] | None:
        return self._propose() if self._given < total_trials(self.config) else None

    def _propose(self) -> dict[str, Any]:
        index, self._given = self._given, self._given + 1
        base = {NUMBER: index, FIXED: None, CHECKPOINT: None, EPOCHS: 0}
        if index >= len(self._points):
            return {**base, VALUES: self._searcher.propose(name_of(index))}
        name, values = self._points[index]
        self._add(name_of(index), values)
        return {**base, VALUES: values, FIXED: name}

    def _add(self, trial: str, values: dict[str, Any]) -> None:
        """Tell the searcher of values that it has not proposed, if they lie inside the space."""
        inside = list(self.config.space.walk(values))
        if {key for key, _, _ in inside} == set(values) and all(each.contains(values[key]) for key, _, each in inside):
            # As its options write them, since searchers look values up there.
            self._searcher.add_fixed(trial, values | {key: each.as_listed(values[key]) for key, _, each in inside})

    def _measured(self, result: Mapping[str, Any]) -> dict[str, float] | None:
        """The metrics that trials are compared by; None if one is missing, as in epochs without an evaluation."""
        metrics = self.config.search.metrics
        return {name: result[name] for name in metrics} if all(name in result for name in metrics) else None

    def _report(self, name: str, result: Mapping[str, Any]) -> None:
        epoch, metrics = int(result["epoch"]), self._measured(result)
        # A trial that continues from a checkpoint reports some epochs a second time.
        if metrics is not None and epoch > self._reported.get(name, 0):
            self._reported[name] = epoch
            self._searcher.on_result(name, epoch, metrics)

    def _tell(self, name: str, result: Mapping[str, Any] | None) -> None:
        """Tell the searcher a trial's last result; None if it failed."""
        self.begun.discard(name)
        status: Literal["completed", "stopped", "failed"] = "failed"
        metrics = self._measured(result) if result else None
        if result:
            self._report(name, result)  # Tune does not report the result at which it stops a trial
            if metrics is not None:
                status = "completed" if result["epoch"] >= self.config.experiment.training.epochs else "stopped"
            errors = {each: result[f"{each}_se"] for each in self.config.search.metrics if f"{each}_se" in result}
            if errors:
                self._searcher.on_errors(name, errors)
        self._searcher.on_end(name, status, metrics or {})

    def _replay(self, past: Sequence[Event]) -> list[dict[str, Any]]:
        """Repeat the proposals and results of an earlier driver; give the trials that were not at their end.

        The order matters: a searcher proposes each trial from what had been reported by then.
        """
        every: dict[str, dict[str, Any]] = {}
        other: list[str] = []

        def propose_again(event: Proposed) -> None:
            while event.id not in every:  # more than once where damaged lines of the journal are missing
                proposed = self._propose()
                every[name_of(proposed[NUMBER])] = proposed
            if event.values is not None and not _equal(every[event.id][VALUES], event.values):
                other.append(event.id)
                self._searcher.on_end(event.id, "failed", {})
                self._add(event.id, event.values)
                every[event.id][VALUES] = event.values

        records = replay(
            past,
            on_proposed=propose_again,
            on_result=lambda event, _: self._report(event.id, {"epoch": event.epoch, **event.metrics}),
            on_ended=self._end_again,
            on_learned=self._learn,
            on_retried=lambda record: self._add(record.id, record.params),
        )
        if other:
            _log.warning(
                "the values of %d trials (%s) are those of the journal: the searcher would draw others today, as "
                "another version of bgsweep or Optuna, or another processor, may",
                len(other),
                ", ".join(other[:5]) + (", …" if len(other) > 5 else ""),
            )
        left = [name for name in every if name not in records or records[name].status == "running"]
        for name in left:
            if name in records:
                record = records[name]
                every[name] |= {VALUES: record.params, CHECKPOINT: record.checkpoint, EPOCHS: record.epochs}
        return [every[name] for name in left]

    def _end_again(self, record: TrialRecord) -> None:
        failed = record.status == "failed"
        self._tell(record.id, None if failed else {"epoch": record.epochs, **record.metrics})

    def _learn(self, event: Learned) -> None:
        name = f"{event.sweep}/{event.source}"
        self._add(name, event.values)
        self._searcher.on_end(name, event.status, event.metrics)

    def save(self, checkpoint_path: str) -> None:
        """Part of Tune's interface; a sweep is resumed from its journal, not from a pickle."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""


def _as_planned(config: SweepConfig, past: Sequence[Event]) -> SweepConfig:
    """The config as the sweep began: a searcher may depend on `search.trials`, which may have been raised since."""
    first = next((event.trials for event in past if isinstance(event, Owned)), None)
    if first is None:
        return config
    return config.model_copy(update={"search": config.search.model_copy(update={"trials": first})})


def _equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """True if two trials have the same values."""
    return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())


def fixed_points(config: SweepConfig) -> list[tuple[str | None, dict[str, Any]]]:
    """Names and values of the trials before the first draw: the baseline, then the points that the config lists.

    The values have the form that the journal gives back.
    """
    named: list[tuple[str | None, dict[str, Any]]] = []
    if config.search.baseline:
        off = config.experiment.without_background()
        # A background transform that is off has no schedule.
        rest = {key: value for key, value in config.complete({}).items() if key.rpartition(".")[0] not in off}
        named.append(("baseline", rest | off))
    named += [(f"point {index}", config.complete(point)) for index, point in enumerate(config.space.points, start=1)]
    return [(name, as_json(values)) for name, values in named]


def trial_name(trial: Any) -> str:
    """The name of one of Tune's trials in tables, folders and MLflow: t00, t01, ..., and c01 for t01's confirmation."""
    return named(trial.config)


def named(proposal: Mapping[str, Any]) -> str:
    """As `trial_name`, by the trial's configuration."""
    name = name_of(proposal[NUMBER])
    return confirmation_of(name) if proposal.get(CONFIRMS) else name


def name_of(number: int) -> str:
    """A trial's name by its number, from 0."""
    return f"t{number:02d}"


def total_trials(config: SweepConfig) -> int:
    """The number of the sweep's trials, fixed points included: `search.trials`, or of a grid its size."""
    limit = searcher_class(config).limit(config)
    return config.search.trials if limit is None else len(fixed_points(config)) + limit
