"""The end of a sweep: best trial and baseline are evaluated on the test split, and the best is registered."""

import copy
import math
from dataclasses import dataclass
from functools import partial
from statistics import mean, stdev
from typing import Any

import ray

from bgsweep.config import EvaluationWorkers, SuiteConfig, SweepConfig, resolve
from bgsweep.distributed.placement import reserved
from bgsweep.distributed.train import one_worker
from bgsweep.distributed.warm import trial_environment
from bgsweep.errors import UserError, collected_warnings, last_line, one_line, without_password
from bgsweep.storage.layout import seed_checkpoints
from bgsweep.sweep.selection import seeds_of
from bgsweep.sweep.trial import dump
from bgsweep.sweep.trial_record import TrialRecord
from bgsweep.tracking import Tracker, provenance
from bgsweep.tracking.tracker import PATIENCE


@dataclass(frozen=True)
class SearchOutcome:
    """Outcome of the search: all trials, the best, the baseline if it completed, and the parent run."""

    sweep: str
    parent: str
    records: list[TrialRecord]
    best: TrialRecord
    baseline: TrialRecord | None


def evaluate_and_register_best(config: SweepConfig, tracker: Tracker, ending: SearchOutcome) -> dict[str, Any]:
    """Evaluate the best trial, the baseline and an untrained encoder; register the best; complete all runs' records.

    The work that needs torch is done by a Ray task, so that the driver stays small.

    Returns:
        ``best``, ``baseline`` and ``champion`` (the registry's before; each may be None), ``untrained``, ``model``
        (``name``, ``version``, ``alias``, ``reason``) and ``warnings``: plain values.

    Raises:
        UserError: it failed; all trials are kept.
    """
    tracker.flush(PATIENCE)
    try:
        with reserved(config, name=ending.sweep) as resources:
            task = ray.remote(**resources.options, **trial_environment())(_evaluate_and_register)
            verdict: dict[str, Any] = ray.get(task.remote(dump(config), tracker.address, ending, resources.helpers))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause)) from error
        raise UserError(f"the evaluation at the end failed: {last_line(error)}") from error
    except ray.exceptions.RayError as error:  # the process died: of memory, or with its node
        raise UserError(f"the evaluation at the end failed: {one_line(error)}") from error
    missing = _complete_runs(config, tracker, ending)
    return verdict | {"warnings": [*filter(None, [resources.warning, missing]), *verdict["warnings"]]}


def _complete_runs(config: SweepConfig, tracker: Tracker, ending: SearchOutcome) -> str:
    """Log what the verdict does not need, on one core: with 1,000 trials it takes minutes, in which the resources of
    the evaluation are free for other sweeps. Returns a warning; a failure does not cost the sweep its result."""
    try:
        task = ray.remote(num_cpus=1, max_retries=0, **trial_environment())(_log_runs)
        missing: str = ray.get(task.remote(dump(config), tracker.address, ending))
    except ray.exceptions.RayError as error:
        missing = last_line(error)
    return missing and f"datasets, images or models of some trials are not in MLflow: {missing}"


def _log_runs(tree: dict[str, Any], address: str, ending: SearchOutcome) -> str:
    """Log the inputs of all runs, and the kept checkpoints as models if the config says so."""
    from bgsweep.data import Splits, open_splits
    from bgsweep.report.run_artifacts import log_checkpoint, log_inputs, log_variants
    from bgsweep.training.run import limit_threads

    limit_threads(1)
    file = resolve(tree)
    tracker, opened = Tracker(address, file.name), dict[str, Splits]()

    def splits_of(config: SweepConfig) -> Splits:
        key = config.experiment.data.model_dump_json()
        if key not in opened:  # most trials have the same
            opened[key] = open_splits(config.experiment.data)
        return opened[key]

    winner = file.with_values(ending.best.params)
    log_inputs(tracker, ending.parent, winner, splits=splits_of(winner))
    log_variants(tracker, ending.parent, winner)
    for record in ending.records:
        if file.refusal(record.params):
            continue  # it was never trained
        config = file.with_values(record.params)
        log_inputs(tracker, record.run_id, config, splits=splits_of(config))
        if file.register_as.checkpoints and record.checkpoint and record.status in ("completed", "stopped"):
            log_checkpoint(tracker, config, record.public(), splits_of(config))
    return "" if tracker.flush(PATIENCE) else f"MLflow at {without_password(address)} did not take everything"


def _evaluate_and_register(tree: dict[str, Any], address: str, ending: SearchOutcome, helpers: int) -> dict[str, Any]:
    with collected_warnings() as warnings:
        return {**_verdict(tree, address, ending, partial(judged, helpers=helpers)), "warnings": warnings}


def judged(config: SweepConfig, trained: Any, helpers: int) -> Any:
    """The final evaluation of an encoder, on the GPU that Ray gave this task, if any, with workers beside it."""
    from bgsweep.distributed.evaluation_workers import RayWorkers
    from bgsweep.training.final_evaluation import evaluate_final, final_context

    on_cpu = not (ray.is_initialized() and ray.get_gpu_ids())  # which would start a Ray of its own
    if not helpers:
        return evaluate_final(config, trained, on_cpu=on_cpu)
    one = one_worker(config)
    there = EvaluationWorkers(count=helpers, cpus=one["CPU"], gpus=one["GPU"])
    make = partial(final_context, config, copy.deepcopy(trained), on_cpu=on_cpu)
    with RayWorkers(make, SuiteConfig(workers=there)) as workers:
        return evaluate_final(config, trained, workers=workers, on_cpu=on_cpu)


def _verdict(tree: dict[str, Any], address: str, ending: SearchOutcome, judge: Any) -> dict[str, Any]:
    from bgsweep.data import open_splits
    from bgsweep.report.run_artifacts import dataset_of, log_checkpoint, log_report
    from bgsweep.sweep.promotion import decide
    from bgsweep.training.checkpoint import load_trained, untrained
    from bgsweep.training.run import limit_threads

    file, best = resolve(tree), ending.best
    limit_threads(one_worker(file)["CPU"])
    tracker = Tracker(address, file.name)
    winner = file.with_values(best.params)
    splits = open_splits(winner.experiment.data)
    model = log_checkpoint(tracker, winner, best.public(), splits)
    reports = {}
    for record in {id(record): record for record in (ending.baseline, best) if record}.values():
        reports[record.id] = judge(file.with_values(record.params), load_trained(record.checkpoint or ""))
        its = model if record is best else None
        log_report(tracker, record.run_id, reports[record.id], record.epochs, its, dataset_of(splits.test))
    report = reports[best.id]
    log_report(tracker, ending.parent, report, best.epochs)
    decision = decide(tracker, winner, best.run_id, report, judge)
    entry, decision = _register(tracker, ending, winner, model, report, decision, judge)
    tracker.flush()
    start = judge(winner, untrained(winner.experiment))
    evaluated = {
        role: None
        if record is None
        else {"trial": record.id, "params": record.params, "epochs": record.epochs}
        | _metrics(reports[record.id])
        | _over_seeds(file.with_values(record.params), record, reports[record.id], judge)
        for role, record in (("best", best), ("baseline", ending.baseline))
    }
    champion = decision.report and {"version": decision.version} | _metrics(decision.report)
    return {
        **evaluated,
        "champion": champion,
        "untrained": _metrics(start),
        "model": entry | {"reason": decision.reason},
    }


def _register(
    tracker: Tracker, ending: SearchOutcome, winner: SweepConfig, model: str, report: Any, decision: Any, judge: Any
) -> tuple[dict[str, Any], Any]:
    """Make the winner's logged model a version with its lineage; give the decision that held."""
    from bgsweep.report.run_artifacts import registry_tags
    from bgsweep.sweep.promotion import decide_again
    from bgsweep.tracking.registry import add_version, give_alias, tag_version, version_of

    best, name = ending.best, winner.register_as.name
    version = known = version_of(tracker, best.run_id, name)  # of a driver that died then, or of an earlier end
    if version is None:
        commit = provenance().get("mlflow.source.git.commit", "")
        lineage = {"sweep": ending.sweep, "trial": best.id, "git_commit": commit}
        tags = registry_tags(winner, report, lineage) | decision.tags()
        version = add_version(tracker, best.run_id, model, name, tags)
    settled = decide_again(tracker, winner, best.run_id, report, decision, judge)
    if known is not None:  # its numbers are those of this end now, its lineage is what it was
        tag_version(tracker, name, version, registry_tags(winner, report, {}) | settled.tags())
    elif settled is not decision:
        tag_version(tracker, name, version, settled.tags())
    give_alias(tracker, name, version, settled.alias)
    return {"name": name, "version": version, "alias": settled.alias}, settled


def _over_seeds(config: SweepConfig, record: TrialRecord, report: Any, judge: Any) -> dict[str, Any]:
    """The report's key numbers for all seeds of a trial, of which the report itself is the first; {} for one seed."""
    from bgsweep.training.checkpoint import load_trained

    others = seed_checkpoints(record.checkpoint or "", config.experiment.seed, seeds_of(config, record.id))[1:]
    reports = [
        report,
        *(judge(config, load_trained(each)) for each in others),
    ]
    if not others:
        return {}
    values = {name: [each.unlabelled[name] for each in reports] for name in report.unlabelled if name[-3:] != "_se"}
    if report.knn_top1 is not None:
        values["knn_top1"] = [each.knn_top1 for each in reports]
        values["linear_top1"] = [each.linear_top1 for each in reports]
    if report.backgrounds:
        values["bg_gap"] = [each.backgrounds["bg_gap"] for each in reports]
    return {
        "seeds": {
            name: {"mean": mean(found), "se": stdev(found) / math.sqrt(len(found)), "values": found}
            for name, found in values.items()
        }
    }


def _metrics(report: Any) -> dict[str, Any]:
    metrics = report.public()
    return {"protocol": metrics.pop("protocol"), "metrics": metrics}
