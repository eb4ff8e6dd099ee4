"""A sweep's trials as a table: for pandas, CSV and Parquet."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgsweep.config.metric_names import RENAMED, with_new_names
from bgsweep.errors import UserError
from bgsweep.storage.uri import Uri
from bgsweep.sweep.events import Result, replay
from bgsweep.sweep.journal import read_journal, read_records
from bgsweep.sweep.manifest import find_sweep
from bgsweep.sweep.store import local_store
from bgsweep.sweep.trial_names import by_number
from bgsweep.sweep.trial_record import TrialRecord

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]


def rows_of(name: str, store: Uri, epochs: bool = False) -> list[Row]:
    """A row for each trial of a sweep, which may still be running, or with ``epochs`` for each epoch of each trial.

    Columns: ``sweep``, ``trial``, ``status``, ``fixed``, ``epochs`` or ``epoch``, ``seconds``, ``failures``, ``error``,
    ``digest``, ``run_id``, ``checkpoint``; ``params.KEY``; ``metrics.NAME``.

    Raises:
        UserError: the store has no such sweep.
    """
    with local_store(store, name) as local:
        folder, _ = find_sweep(name, local)
        if not epochs:
            records = read_records(folder)
            return _whole([_trial(name, records[key]) for key in sorted(records, key=by_number)])
        curves: dict[str, list[Row]] = {}

        def extend(event: Result, record: TrialRecord) -> None:
            for metrics in event.history or [{"epoch": event.epoch, **event.metrics}]:
                curves.setdefault(record.id, []).append({"epoch": metrics["epoch"], **_metrics(metrics)})

        records = replay(read_journal(folder), on_result=extend)
    found = []
    for key in sorted(records, key=by_number):
        trial = {column: value for column, value in _trial(name, records[key]).items() if "metrics." not in column}
        del trial["epochs"]
        found += [{**trial, **each} for each in curves.get(key, ())]
    return _whole(found)


def frame(name: str, store: Uri, epochs: bool = False) -> "pd.DataFrame":
    """`rows_of` as a DataFrame."""
    import pandas as pd

    return pd.DataFrame(rows_of(name, store, epochs))


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write a table; raises UserError where the file cannot be written."""
    try:
        with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else [])
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}; name another file") from error


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    """Write a table; raises UserError where the file cannot be written."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        parquet.write_table(pa.Table.from_pylist(list(rows)), path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}; name another file") from error


def _trial(sweep: str, record: TrialRecord) -> Row:
    names = ("status", "fixed", "epochs", "seconds", "failures", "error", "digest", "run_id", "checkpoint")
    params = {f"params.{key}": value for key, value in record.params.items()}
    values = {name: getattr(record, name) for name in names}
    return {"sweep": sweep, "trial": record.id, **values, **params, **_metrics(record.metrics)}


def _metrics(metrics: Mapping[str, float]) -> Row:
    """Metrics under their present names only."""
    named = with_new_names({name: value for name, value in metrics.items() if name != "epoch"})
    return {f"metrics.{name}": value for name, value in named.items() if not _is_earlier(name)}


def _is_earlier(name: str) -> bool:
    base = name.partition("/seed_")[0].removesuffix("_se")
    return base in RENAMED


def _whole(rows: list[Row]) -> list[Row]:
    """The rows with all columns each, in one order: of trials, parameters, metrics; a column's values of one type."""
    groups: dict[str, list[str]] = {"": [], "params": [], "metrics": []}
    for column in dict.fromkeys(column for row in rows for column in row):
        prefix = column.partition(".")[0]
        groups[prefix if prefix in groups else ""].append(column)
    columns = [column for group in groups.values() for column in group]
    mixed = {column for column in columns if not _alike([row.get(column) for row in rows])}
    return [{column: _cell(row.get(column), column in mixed) for column in columns} for row in rows]


def _alike(values: Sequence[Any]) -> bool:
    kinds = {type(value) for value in values if value is not None}
    return not kinds & {list, tuple, dict} and (len(kinds) < 2 or kinds == {int, float})


def _cell(value: Any, mixed: bool) -> Any:
    return value if not mixed or value is None or isinstance(value, str) else json.dumps(value)
