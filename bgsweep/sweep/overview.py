"""The parent run's page in MLflow: the best value so far, and a description with the trials, the front and the winner.

MLflow's list of runs shows a page of nested runs at a time, in which the trials of a long sweep get lost.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from bgsweep.config import SweepConfig
from bgsweep.config.metric_names import shown_name
from bgsweep.errors import UserError, warn_once
from bgsweep.sweep.events import Result
from bgsweep.sweep.selection import front as front_of
from bgsweep.sweep.trial_names import by_number
from bgsweep.sweep.trial_record import TrialRecord
from bgsweep.tracking import Tracker
from bgsweep.tracking.registry import DESCRIPTION_LENGTH, MADE_BY, describe
from bgsweep.tracking.tracker import TAG_LENGTH

_EVERY = 60.0  # seconds between descriptions of a sweep that is running
_NOTE = "mlflow.note.content"


class Overview:
    """Keeps the parent run of a sweep up to date; all writes are queued."""

    def __init__(self, config: SweepConfig, tracker: Tracker, parent: str, sweep: str) -> None:
        self._config, self._tracker, self._parent, self._sweep = config, tracker, parent, sweep
        self._epochs: dict[str, int] = {}
        self._total = 0
        self._best: dict[str, float] = {}
        self._described = time.monotonic()

    def last_step(self) -> int:
        """The last step of the best value that MLflow has; waits for MLflow."""
        return self._tracker.last_epoch(self._parent, _best_name(self._config.search.metrics[0]))

    def result(self, event: Result, after: int = 0) -> None:
        """Take a trial's result into account. The step of a best value is the number of epochs of all trials so far.

        Args:
            after: log best values of later steps only, as those before are in MLflow.
        """
        for metrics in event.history or [{"epoch": event.epoch, **event.metrics}]:
            self._total += int(metrics["epoch"]) - self._epochs.get(event.id, 0)
            self._epochs[event.id] = int(metrics["epoch"])
            better = {name: metrics[name] for name, sign in self._signs(metrics) if self._is_best(name, sign, metrics)}
            self._best |= better
            if better and self._total > after:
                told = {_best_name(name): value for name, value in better.items()}
                self._tracker.log_metrics(self._parent, self._total, told)

    def trial_ended(self, records: Mapping[str, TrialRecord]) -> None:
        """Describe the sweep as it is, once a minute at most."""
        if time.monotonic() - self._described >= _EVERY:
            self._described = time.monotonic()
            self._tracker.set_tag(self._parent, _NOTE, describe_sweep(self._sweep, self._config, records.values()))

    def finish(self, records: Mapping[str, TrialRecord], result: Mapping[str, Any]) -> None:
        """Describe the sweep at its end, on the parent run's page and on those of the registered version and model."""
        told = (self._sweep, self._config, records.values(), result)
        self._tracker.set_tag(self._parent, _NOTE, describe_sweep(*told))
        model = result["model"]
        try:
            describe(self._tracker, model["name"], model["version"], describe_sweep(*told, limit=DESCRIPTION_LENGTH))
        except UserError as error:  # a description must not cost a sweep its results
            warn_once(f"the registered model has no description: {error}")

    def _signs(self, metrics: Mapping[str, float]) -> list[tuple[str, int]]:
        return [(name, sign) for name, sign in self._config.search.signs.items() if name in metrics]

    def _is_best(self, name: str, sign: int, metrics: Mapping[str, float]) -> bool:
        return name not in self._best or sign * metrics[name] > sign * self._best[name]


def describe_sweep(
    name: str,
    config: SweepConfig,
    found: Any,
    result: Mapping[str, Any] | None = None,
    limit: int = TAG_LENGTH,
) -> str:
    """A sweep in Markdown: its winner and its trials, the best ones first; as many as there is room for.

    Args:
        found: the trials' records.
        result: of the sweep, where it has ended.
        limit: length of the text.
    """
    records = sorted(found, key=lambda record: by_number(record.id))
    states = [record.status for record in records]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    text = f"{MADE_BY}, sweep `{name}`: {counts or 'no trial yet'}.\n\n"
    if result:
        model = result["model"]
        text += f"**Winner: {result['best']['trial']}**, registered as `{model['name']}` version {model['version']}, "
        text += f"alias {model['alias']}: {model['reason']}.\n\n### Final evaluation\n\n{_comparison(result)}\n"
    return _with_trials(text, config, records, result["best"]["trial"] if result else None, limit)


def _with_trials(text: str, config: SweepConfig, records: Sequence[TrialRecord], winner: str | None, limit: int) -> str:
    """Add as many rows of the trials' table as fit."""
    metrics, signs = config.search.metrics, config.search.signs
    keys = list(config.space.parameters)
    front = {record.id for record in front_of(records, config.search)} if len(metrics) > 1 else set()
    first, sign = next(iter(signs.items()))
    ranked = sorted(
        records, key=lambda each: (each.status != "completed", -sign * each.metrics.get(first, -sign * float("inf")))
    )
    heads = ["trial", "status", "epochs", *map(shown_name, metrics), *keys, ""]
    text += f"### Trials, the best first\n\n{_row(heads)}{_row(['---'] * len(heads))}"
    for number, each in enumerate(ranked):
        notes = ["**winner**"] * (each.id == winner) + ["Pareto front"] * (each.id in front)
        notes += [each.fixed] if each.fixed else []
        values = [_shown(each.metrics.get(metric)) for metric in metrics]
        cells = [each.id, each.status, str(each.epochs), *values]
        cells += [*(_shown(each.params.get(key)) for key in keys), ", ".join(notes)]
        rest = f"\n{len(ranked) - number} more trials are in `report.html` among the files of the sweep's run.\n"
        if len(text) + len(_row(cells)) + len(rest) > limit:
            return text + rest
        text += _row(cells)
    return text


def _comparison(result: Mapping[str, Any]) -> str:
    """The final evaluation: a column for each encoder, in percent."""
    roles = [role for role in ("best", "baseline", "champion", "untrained") if result.get(role)]
    found = [result[role]["metrics"] for role in roles]
    values = {"kNN": "knn_top1", "linear probe": "linear_top1"}
    rows = [[label, *(each[key] for each in found)] for label, key in values.items()]
    rows = [] if found[0]["knn_top1"] is None else rows
    rows += [
        [f"kNN {name}", *((each["backgrounds"] or {}).get(name) for each in found)]
        for name in found[0]["backgrounds"] or ()
    ]
    names = {"best": "winner", "baseline": "no background augmentation", "champion": "champion before"}
    heads = ["test split, %" if rows else "test split", *(names.get(role, role) for role in roles)]
    body = (_row([row[0], *("" if one is None else f"{100 * one:.1f}" for one in row[1:])]) for row in rows)
    rest = (
        _row([name, *(f"{each['unlabelled'][name]:.4g}" for each in found)])
        for name in found[0].get("unlabelled") or ()
    )
    return _row(heads) + _row(["---"] * len(heads)) + "".join(body) + "".join(rest)


def _best_name(metric: str) -> str:
    return f"best/{shown_name(metric)}"


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"
