"""Results of earlier sweeps for a new sweep's searcher (`search.warm_start`)."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bgsweep.config import Experiment, SweepConfig, resolve
from bgsweep.config.metric_names import shown_name
from bgsweep.config.schedule import same
from bgsweep.config.search import IN_MLFLOW
from bgsweep.errors import UserError
from bgsweep.storage.uri import Uri
from bgsweep.sweep.events import Learned
from bgsweep.sweep.journal import read_records
from bgsweep.sweep.manifest import find_sweep
from bgsweep.sweep.selection import searched
from bgsweep.sweep.store import local_store
from bgsweep.sweep.trial_names import is_confirmation
from bgsweep.sweep.trial_record import TrialRecord
from bgsweep.tracking import tracking_uri
from bgsweep.tracking.trials import RecordedTrial, recorded_trials


@dataclass(frozen=True)
class _Earlier:
    """A trial that an earlier sweep has measured; without its experiment where that is refused today."""

    sweep: str
    record: TrialRecord
    experiment: Experiment | None


def results_of_earlier(config: SweepConfig, store: Uri) -> tuple[list[Learned], list[str]]:
    """The trials that the sweeps of `search.warm_start` have measured, as events, and lines that say what is left out.

    Raises:
        UserError: there is no such sweep or MLflow experiment, or MLflow cannot be reached.
    """
    found: list[Learned] = []
    notes = []
    for name in config.search.warm_start:
        try:
            trials = _in_mlflow(config, name, store) if name.startswith(IN_MLFLOW) else _in_store(name, store)
        except UserError as error:
            raise UserError(f"search.warm_start: {error}") from error
        reasons: Counter[str] = Counter()
        learned = []
        for earlier in trials:
            values, reason = _in_space(config, earlier)
            if reason:
                reasons[reason] += 1
            else:
                learned.append(_event(config, earlier, values))
        found += learned
        left_out = "".join(f"; {count} left out: {reason}" for reason, count in reasons.items())
        notes.append(f"search.warm_start: {len(learned)} trials of {name} are learned from{left_out}")
    return found, notes


def _in_store(name: str, store: Uri) -> list[_Earlier]:
    with local_store(store, name, "state") as local:
        folder, manifest = find_sweep(name, local)
        records = read_records(folder)
    experiment = resolve(dict(manifest["file"])).experiment
    ended = [record for record in searched(records.values()) if record.status in ("completed", "stopped")]
    return [_Earlier(name, record, _with_values(experiment, record.params)) for record in ended]


def _with_values(experiment: Experiment, values: dict[str, Any]) -> Experiment | None:
    try:
        return experiment.with_values(values)
    except ValueError:
        return None


def _in_mlflow(config: SweepConfig, name: str, store: Uri) -> list[_Earlier]:
    trials = recorded_trials(tracking_uri(store), name.removeprefix(IN_MLFLOW))
    return [_from_mlflow(config, trial) for trial in trials if not is_confirmation(trial.trial)]


def _from_mlflow(config: SweepConfig, trial: RecordedTrial) -> _Earlier:
    """A trial as its MLflow run has it: its values are those of its experiment at the keys that its sweep searched."""
    names = {metric: shown_name(metric) for metric in config.search.metrics}
    metrics = {metric: trial.metrics[name] for metric, name in names.items() if name in trial.metrics}
    values: dict[str, Any] = {}
    experiment: Experiment | None = None
    try:
        if trial.file and trial.experiment:
            experiment = resolve(dict(trial.experiment)).experiment
            for key, _, _ in resolve(dict(trial.file)).space.walk(values):
                values[key] = experiment.value(key)
    except (UserError, KeyError, TypeError):  # written by a version whose keys are no longer known
        experiment = None
    return _Earlier(
        trial.sweep, TrialRecord(trial.trial, values, None, "", "", trial.status, metrics=metrics), experiment
    )


def _in_space(config: SweepConfig, earlier: _Earlier) -> tuple[dict[str, Any], str]:
    """A trial's values by the new sweep's keys, or the reason why they are none of the new space."""
    missing = [metric for metric in config.search.metrics if metric not in earlier.record.metrics]
    if missing:
        return {}, f"without {missing[0]}"
    if earlier.experiment is None:
        return {}, "values that can no longer be combined"
    values: dict[str, Any] = {}
    for key, outside in _walk(config, earlier.experiment, values):
        if outside:
            return {}, f"{key} outside the space"
    for key, value in earlier.record.params.items():
        if key not in values and (not config.experiment.has(key) or not same(config.experiment.value(key), value)):
            return {}, f"{key} has another value"
    return values, ""


def _walk(config: SweepConfig, whole: Experiment, values: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Fill ``values`` with the experiment's, key by key; give each key, and whether its value is outside the space."""
    for key, _, distribution in config.space.walk(values):
        try:
            value = whole.value(key) if whole.has(key) else None
        except (KeyError, TypeError):
            value = None
        values[key] = value
        yield key, value is None or not distribution.contains(value)


def _event(config: SweepConfig, earlier: _Earlier, values: dict[str, Any]) -> Learned:
    record = earlier.record
    metrics = {metric: record.metrics[metric] for metric in config.search.metrics}
    return Learned(
        sweep=earlier.sweep,
        source=record.id,
        values=values,
        status="completed" if record.status == "completed" else "stopped",
        metrics=metrics,
    )
