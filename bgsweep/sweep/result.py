"""The result of a sweep: its best trial, evaluated and registered, and the Pareto front."""

from pathlib import Path
from typing import Any

from bgsweep.config import SweepConfig
from bgsweep.config.metric_names import with_new_names
from bgsweep.errors import UserError
from bgsweep.storage.uri import Uri, sweep_command
from bgsweep.sweep.callbacks import SweepCallback
from bgsweep.sweep.final_evaluation import SearchOutcome, evaluate_and_register_best
from bgsweep.sweep.selection import comparison, confirmed, first_new_seed, front, held_out, seeds_of, winner
from bgsweep.sweep.trial_names import by_number, confirmation_of, confirmed_by
from bgsweep.sweep.trial_record import TrialRecord

_END_ERROR = "end_error.txt"


def evaluate_and_sum_up(config: SweepConfig, folder: Path, store: Uri, monitor: SweepCallback) -> dict[str, Any]:
    """Evaluate and register the best trial; give the sweep's result."""
    records = sorted(monitor.records.values(), key=lambda record: by_number(record.id))
    ending = SearchOutcome(folder.name, monitor.parent, records, _best(config, records), _baseline(config, records))
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
    if config.search.confirm:
        result["confirmation"] = _confirmation(config, monitor, ending.best)
    if len(config.search.metrics) > 1:
        result["pareto"] = [
            {
                "trial": each.id,
                "values": with_new_names({metric: each.metrics[metric] for metric in config.search.metrics}),
            }
            for each in front(records, config.search)
        ]
    return result


def _confirmation(config: SweepConfig, monitor: SweepCallback, best: TrialRecord) -> dict[str, Any] | None:
    """The trials that were trained again, with their values beside the search's; also in tags of the sweep's run.

    Returns:
        ``seeds``, ``champion`` (one of the search's trials), ``unbiased``, its value by each metric (`held_out`), and
        ``trials``: of each ``trial``, ``confirmed_by`` and ``values``, which has for each metric ``value``, ``se``
        (over the new seeds), and ``searched``, which is biased: the trial was chosen by it. None if no trial was
        confirmed.
    """
    again = confirmed(monitor.records, config.search)
    if not again:
        monitor.progress.note("search.confirm: no trial was trained again to its end; the search alone has decided")
        return None
    first = first_new_seed(config)
    seeds = list(range(first, first + seeds_of(config, best.id)))
    unbiased = held_out(again, config.search, seeds)
    trials: list[dict[str, Any]] = [
        {
            "trial": confirmed_by(each.id),
            "confirmed_by": each.id,
            "values": comparison(each, monitor.records, config.search),
        }
        for each in again
    ]
    own = next(each["values"] for each in trials if each["confirmed_by"] == best.id)
    for name, one in own.items():
        told = (
            f"{one['value']:.4g} ± {one['se']:.2g} over {len(seeds)} new seeds, {unbiased[name]:.4g} without the bias "
        )
        told += f"of choosing among those confirmed; {one['searched']:.4g} in the search"
        monitor.tracker.set_tag(monitor.parent, f"bgsweep.confirmed.{name}", told)
    return {"seeds": seeds, "champion": confirmed_by(best.id), "unbiased": unbiased, "trials": trials}


def _best(config: SweepConfig, records: list[TrialRecord]) -> TrialRecord:
    """The best of the trials that ran to their end: compared with the baseline at equal training."""
    best = winner({record.id: record for record in records}, config.search)
    if best is None:
        failed = [record for record in records if record.status == "failed"]
        reason = f"; the last one: {failed[-1].error}" if failed else ""
        raise UserError(f"no trial ran to its end, {len(failed)} of {len(records)} failed{reason}")
    return best


def _baseline(config: SweepConfig, records: list[TrialRecord]) -> TrialRecord | None:
    """The baseline, on the same seeds as the best trial: where that was confirmed, its confirmation."""
    own = {record.id: record for record in records if record.status == "completed"}
    baseline = next((record for record in own.values() if record.fixed == "baseline"), None)
    if baseline and confirmed(own, config.search):
        return own.get(confirmation_of(baseline.id))
    return baseline
