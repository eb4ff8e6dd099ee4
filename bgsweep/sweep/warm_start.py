"""Results of earlier sweeps for a new sweep's searcher (`search.warm_start`)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bgsweep.config import Experiment, SweepConfig, resolve
from bgsweep.errors import UserError
from bgsweep.storage.uri import Uri
from bgsweep.sweep.events import Learned, TrialRecord
from bgsweep.sweep.journal import read_records
from bgsweep.sweep.manifest import find_sweep
from bgsweep.sweep.store import local_store


def results_of_earlier(config: SweepConfig, store: Uri) -> tuple[list[Learned], list[str]]:
    """The trials that the sweeps of `search.warm_start` have measured, as events, and lines that say what is left out.

    Raises:
        UserError: there is no such sweep.
    """
    found: list[Learned] = []
    notes = []
    for name in config.search.warm_start:
        with local_store(store, name, "state") as local:
            folder, manifest = _find(name, local)
            records = read_records(folder)
        experiment = resolve(dict(manifest["file"])).experiment
        ended = [record for record in records.values() if record.status in ("completed", "stopped")]
        reasons: dict[str, int] = {}
        learned = []
        for record in ended:
            values, reason = _in_space(config, experiment, record)
            if reason:
                reasons[reason] = reasons.get(reason, 0) + 1
            else:
                learned.append(_event(config, name, record, values))
        found += learned
        left_out = "".join(f"; {count} left out: {reason}" for reason, count in reasons.items())
        notes.append(f"search.warm_start: {len(learned)} trials of {name} are learned from{left_out}")
    return found, notes


def _find(name: str, store: Path) -> tuple[Path, dict[str, Any]]:
    try:
        return find_sweep(name, store)
    except UserError as error:
        raise UserError(f"search.warm_start: {error}") from error


def _in_space(config: SweepConfig, theirs: Experiment, record: TrialRecord) -> tuple[dict[str, Any], str]:
    """A trial's values by the new sweep's keys, or the reason why they are none of the new space."""
    missing = [metric for metric in config.search.metrics if metric not in record.metrics]
    if missing:
        return {}, f"without {missing[0]}"
    try:
        whole = theirs.with_values(record.params)
    except ValueError:
        return {}, "values that can no longer be combined"
    values: dict[str, Any] = {}
    for key, outside in _walk(config, whole, values):
        if outside:
            return {}, f"{key} outside the space"
    for key, value in record.params.items():
        if key not in values and (not config.experiment.has(key) or config.experiment.value(key) != value):
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


def _event(config: SweepConfig, name: str, record: TrialRecord, values: dict[str, Any]) -> Learned:
    metrics = {metric: record.metrics[metric] for metric in config.search.metrics}
    return Learned(
        sweep=name,
        source=record.id,
        values=values,
        status="completed" if record.status == "completed" else "stopped",
        metrics=metrics,
    )
