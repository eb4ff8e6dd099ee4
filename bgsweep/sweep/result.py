"""The result of a sweep: its best trial, evaluated and registered, and the Pareto front."""

from pathlib import Path
from typing import Any

from bgsweep.config import SweepConfig
from bgsweep.config.metric_names import with_new_names
from bgsweep.errors import UserError
from bgsweep.storage.uri import Uri, sweep_command
from bgsweep.sweep.callbacks import SweepCallback
from bgsweep.sweep.events import TrialRecord, by_number
from bgsweep.sweep.final_evaluation import SearchOutcome, evaluate_and_register_best
from bgsweep.sweep.pareto import best_of, pareto

_END_ERROR = "end_error.txt"


def evaluate_and_sum_up(config: SweepConfig, folder: Path, store: Uri, monitor: SweepCallback) -> dict[str, Any]:
    """Evaluate and register the best trial; give the sweep's result."""
    records = sorted(monitor.records.values(), key=lambda record: by_number(record.id))
    front = pareto(records, config.search.signs)
    ending = SearchOutcome(folder.name, monitor.parent, records, _best(config, records, front), _baseline(records))
    monitor.progress.note(f"evaluating {ending.best.id} on the test split, which the search has not used")
    try:
        verdict = evaluate_and_register_best(config, monitor.tracker, ending)
    except UserError as error:
        (folder / _END_ERROR).write_text(f"{error.__cause__ or error}\n", encoding="utf-8", errors="replace")
        command = sweep_command("sweep --resume", folder.name, store)
        raise UserError(
            f"{error} (in full: {folder / _END_ERROR}); all trials are kept: run the end again with `{command}`, where "
            "needed with other settings such as register.name=OTHER"
        ) from error
    monitor.progress.warn(verdict.pop("warnings", ()))
    result = {"trials": [record.shown() for record in records], **verdict}
    if len(config.search.metrics) > 1:
        result["pareto"] = [
            {
                "trial": each.id,
                "values": with_new_names({metric: each.metrics[metric] for metric in config.search.metrics}),
            }
            for each in front
        ]
    return result


def _best(config: SweepConfig, records: list[TrialRecord], front: list[TrialRecord]) -> TrialRecord:
    """The best of the trials that ran to their end: compared with the baseline at equal training."""
    if not front:
        failed = [record for record in records if record.status == "failed"]
        reason = f"; the last one: {failed[-1].error}" if failed else ""
        raise UserError(f"no trial ran to its end, {len(failed)} of {len(records)} failed{reason}")
    return best_of(front, config.search.signs)


def _baseline(records: list[TrialRecord]) -> TrialRecord | None:
    return next((record for record in records if record.fixed == "baseline" and record.status == "completed"), None)
