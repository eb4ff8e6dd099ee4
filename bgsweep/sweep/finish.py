"""What follows the last trial: judging champion and baseline on unseen photographs, and registering the champion."""

from dataclasses import dataclass
from typing import Any

import ray

from bgsweep.config import SweepFile, resolve
from bgsweep.sweep.journal import TrialRecord
from bgsweep.sweep.trial import dump, trial_file
from bgsweep.tracking import Tracker, provenance


@dataclass(frozen=True)
class Ending:
    """What the search has come to: all trials, the best, the baseline where it ran to its end, and the parent run."""

    sweep: str
    parent: str
    records: list[TrialRecord]
    best: TrialRecord
    baseline: TrialRecord | None


def crown(file: SweepFile, tracker: Tracker, ending: Ending) -> dict[str, Any]:
    """Judge the best trial, the baseline and an untrained encoder alike; register the best; complete all runs' records.

    The work that needs torch is done by a Ray task, so that the driver stays small.

    Returns:
        ``best``, ``baseline`` (or None), ``untrained``, ``model``: plain values.
    """
    tracker.flush()
    task = ray.remote(num_cpus=file.search.cpus, num_gpus=file.search.gpus)(_crown)
    verdict: dict[str, Any] = ray.get(task.remote(dump(file), tracker.address, ending))
    return verdict


def _crown(tree: dict[str, Any], address: str, ending: Ending) -> dict[str, Any]:
    from bgsweep.export import log_encoder, register
    from bgsweep.record import log_inputs, log_report, log_variants, registry_tags
    from bgsweep.run import judge, load_trained, threads, untrained

    file, best = resolve(tree), ending.best
    threads(file.search.cpus)
    tracker = Tracker(address, file.name)
    for record in ending.records:
        log_inputs(tracker, record.run_id, trial_file(tree, record.params))
    reports = {}
    for record in {id(record): record for record in (ending.baseline, best) if record}.values():
        reports[record.id] = judge(trial_file(tree, record.params), load_trained(record.checkpoint or ""))
        log_report(tracker, record.run_id, reports[record.id], record.epochs)
    winner, report = trial_file(tree, best.params), reports[best.id]
    log_inputs(tracker, ending.parent, winner)
    log_variants(tracker, ending.parent, winner)
    log_report(tracker, ending.parent, report, best.epochs)
    encoder = load_trained(best.checkpoint or "").encoder
    experiment = winner.experiment
    model = log_encoder(
        tracker, best.run_id, encoder, experiment.views.size, experiment.model_dump(mode="json"), best.epochs
    )
    lineage = {"sweep": ending.sweep, "trial": best.id, "git_commit": provenance().get("mlflow.source.git.commit", "")}
    entry = register(tracker, best.run_id, model, file.register_as, registry_tags(winner, report, lineage))
    tracker.flush()
    start = judge(winner, untrained(experiment))
    judged = {
        role: None
        if record is None
        else {"trial": record.id, "params": record.params, "epochs": record.epochs} | _metrics(reports[record.id])
        for role, record in (("best", best), ("baseline", ending.baseline))
    }
    return {**judged, "untrained": _metrics(start), "model": entry}


def _metrics(report: Any) -> dict[str, Any]:
    metrics = report.public()
    return {"protocol": metrics.pop("protocol"), "metrics": metrics}
