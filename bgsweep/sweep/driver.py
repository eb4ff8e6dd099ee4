"""Start or resume a sweep: from its first trial to the registered champion."""

import contextlib
import functools
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.tune import TuneError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bgsweep.config import Experiment, SweepConfig, review_search
from bgsweep.config.metric_names import with_new_names
from bgsweep.config.sweep import sweep_name
from bgsweep.distributed.bundles import bundle_of, task_options
from bgsweep.distributed.demand import Demand
from bgsweep.distributed.resources import check_cores, gpus_of_process, grows_on_demand
from bgsweep.distributed.session import ray_session
from bgsweep.distributed.shared_folder import check_shared
from bgsweep.distributed.system_metrics import log_system_metrics
from bgsweep.errors import UserError, without_password
from bgsweep.storage.layout import sweep_folder
from bgsweep.storage.uri import Uri, is_remote, sweep_command
from bgsweep.sweep.budget import BudgetGuard, seconds_of
from bgsweep.sweep.callbacks import SweepCallback
from bgsweep.sweep.capacity import bundles_of_trial, cpus_of_trial, gpus_of_trial, trials_that_fit, wait_for_capacity
from bgsweep.sweep.changes import changed, compare_images
from bgsweep.sweep.collect import Collector
from bgsweep.sweep.events import Event, Learned, Proposed, Retried, TrialRecord, by_number, replay
from bgsweep.sweep.fair_share import FairShare
from bgsweep.sweep.final_evaluation import SearchOutcome, evaluate_and_register_best
from bgsweep.sweep.guards import check_room
from bgsweep.sweep.heartbeat import WATCH, Heartbeat, alive
from bgsweep.sweep.journal import Journal, read_journal, read_records
from bgsweep.sweep.manifest import check_name, find_sweep, read_manifest, sweeps, write_manifest
from bgsweep.sweep.ownership import Ownership, SweepTaken, last_token
from bgsweep.sweep.pareto import best_of, pareto
from bgsweep.sweep.progress import Progress
from bgsweep.sweep.report import log_page
from bgsweep.sweep.search import run_search
from bgsweep.sweep.searcher import total_trials
from bgsweep.sweep.store import StoreSync, forget_stop, local_store, pulse_reader
from bgsweep.sweep.trial import dump, keep_weights, set_up
from bgsweep.sweep.warm_start import results_of_earlier
from bgsweep.tracking import Tracker, tracking_uri
from bgsweep.tracking.client import sqlite_file
from bgsweep.tracking.provenance import owner
from bgsweep.tracking.registry import open_registered_model

_END_ERROR = "end_error.txt"


def sweep(config: SweepConfig, store: Uri, name: str | None = None) -> dict[str, Any]:
    """Search the config's space, evaluate the best trial beside the baseline, and register it.

    Returns:
        ``sweep``, ``tracking_uri``, ``trials``, ``best``, ``baseline``, ``untrained``, ``model``: plain values. With
        several metrics also ``pareto``: each ``trial`` of the front with its ``values``.

    Raises:
        UserError: the cluster is too small, the same sweep is running, or no trial was completed.
    """
    review_search(config)
    if config.search.scheduler == "pbt" and is_remote(store):
        raise UserError(f"{store}: pbt copies checkpoints in folders; give a --store that all nodes share, or use asha")
    results_of_earlier(config, store)  # a mistake in a name is told before anything is started
    if config.search.scheduler == "pbt" and config.experiment.data.loader == "cluster":
        raise UserError("search.scheduler: pbt runs all trials at once, without cores kept for data.loader; use asha")
    if name is not None:
        check_name(name)
    uri = tracking_uri(store)
    with local_store(store, needed="signs") as local:
        if name is not None:
            _refuse_taken(name, local, store)
        _refuse_duplicate(config, local, store)
        folder = Path(sweep_folder(local, name or sweep_name(config.name)))
        with Ownership.claim(folder, store, last_token(folder)) as owner:
            return _run(config, owner, uri, None)


def resume(name: str, store: Uri, overrides: Sequence[str] = (), retry_failed: bool = False) -> dict[str, Any]:
    """Resume a sweep whose driver died; its results are those of an undisturbed one. Returns and raises as `sweep`.

    Args:
        overrides: other settings, ``key=value``, which must not change the results of trials that have ended: how
            trials run and how many there are, the final evaluation (once all trials have ended), and the registry. For
            a sweep that has ended they repeat the final evaluation and the registration.
        retry_failed: trials that failed for good run again, from their last checkpoints.
    """
    with local_store(store, name) as local:
        folder, manifest = find_sweep(name, local)
        if manifest.get("result") and not overrides and not retry_failed:
            command = sweep_command("sweep --resume", name, store)
            raise UserError(
                f"{name}: the sweep has ended; there is nothing to resume. To evaluate and register its best trial "
                f"again, name other settings: `{command} register.name=OTHER`; for more trials: search.trials=MORE"
            )
        config = changed(name, manifest["file"], overrides, read_records(folder))
        seen = last_token(folder)
        if alive(folder, manifest, pulse_reader(folder, store), WATCH):
            command = sweep_command("status", name, store)
            raise UserError(f"{name}: the sweep is still running; follow it with `{command}`")
        with Ownership.claim(folder, store, seen) as owner:
            forget_stop(folder, store)
            return _run(config, owner, tracking_uri(store), manifest, retry_failed)


def _run(
    config: SweepConfig, owner: Ownership, uri: str, before: dict[str, Any] | None, retry_failed: bool = False
) -> dict[str, Any]:
    """Start the sweep, or resume the one whose manifest is ``before``.

    The owner's folder holds the journal, on this machine; the checkpoints go to its store, which may be a bucket.
    """
    several = config.experiment.workers.count > 1
    check_cores(*((config.experiment.workers.cpus, "workers.cpus") if several else (config.search.cpus, "search.cpus")))
    folder, store = owner.folder, owner.store
    with (
        StoreSync(folder, store, owner),
        Heartbeat(folder, owner.token),
        ray_session(cpus_of_trial(config), dashboard=several),
        contextlib.ExitStack() as opened,
    ):
        past = read_journal(folder)
        asked = _digest(config)
        config = _with_kept_weights(config, store, uri)
        wait_for_capacity(config)
        _check_shared(store, uri)
        # Before the first trial: other sweeps make room only for those they know of.
        share = opened.enter_context(_share(config, folder.name))
        first = _first_set_up(config)
        # Takes as long as the first trial's set-up, meanwhile.
        tracker = opened.enter_context(Tracker(uri, config.name))
        checkpoint, notes, images = _result_of(first)
        if before is not None:
            notes += compare_images(folder.name, before, config, images)
        open_registered_model(tracker, config.register_as.name)
        records = replay(past)
        if not is_remote(store):
            ended = sum(record.status != "running" for record in records.values())
            check_room(folder, checkpoint, _checkpoints_at_once(config, total_trials(config) - ended))
        parent = tracker.sweep_run(folder.name, config) if before is None else tracker.reopen(before["parent"])
        began = past[0].time if past else time.time()
        budget = BudgetGuard(config, gpus_of_trial(config), seconds_of(past), records)
        manifest = _manifest(config, asked, parent, began) | {
            "images": (before or {}).get("images") or images,
            "budget": budget.manifest(),
        }
        owner.check()
        write_manifest(folder, manifest)
        opened.enter_context(log_system_metrics(uri, parent))
        progress = opened.enter_context(Progress(folder.name, config, total_trials(config)))
        progress.note(f"sweep {folder.name} in {store}")
        progress.warn(notes)
        progress.budget = budget.told
        journal = Journal(folder, owner, records, total_trials(config))
        past += _told_before(config, owner, journal, progress, past)
        if retry_failed:
            past += _retried(config, journal, records)
        collector = Collector(config, sweep_folder(store, folder.name), journal)
        opened.callback(collector.close)
        monitor = SweepCallback(config, journal, tracker, parent, progress, records, collector, share.trials)
        try:
            result = _search(config, owner, monitor, past, share, budget)
        except (SweepTaken, TuneError):  # Tune wraps what its callbacks raise
            if owner.lost():
                tracker.abandon()
                owner.check()
            raise
        write_manifest(folder, manifest | {"result": result})
    return result


def _search(
    config: SweepConfig,
    owner: Ownership,
    monitor: SweepCallback,
    past: list[Event],
    share: FairShare,
    budget: BudgetGuard,
) -> dict[str, Any]:
    """Run the trials that have not ended, and the sweep's end; give the result."""
    folder, store, tracker = owner.folder, owner.store, monitor.tracker
    monitor.catch_up(past)
    if past and monitor.collector:
        monitor.collector.tidy(monitor.records)
    run_search(config, folder, sweep_folder(store, folder.name), monitor, past, share, budget)
    if monitor.disk.full:
        command = sweep_command("sweep --resume", folder.name, store)
        raise UserError(f"{monitor.disk.full}; free some space, then resume with `{command}`")
    monitor.close()
    share.begin(lambda: 1)  # the final evaluation; the other sweeps take the rest
    if monitor.collector:
        monitor.collector.tidy(monitor.records)
    result = {
        "sweep": folder.name,
        "tracking_uri": without_password(tracker.address),
        **_result(config, folder, store, monitor.parent, list(monitor.records.values()), tracker, monitor.progress),
    }
    owner.check()
    monitor.overview.finish(monitor.records, result)
    manifest = read_manifest(folder) or {}
    log_page(folder, manifest | {"result": result}, tracker)
    owner.check()
    return result


def _check_shared(store: Uri, uri: str) -> None:
    """Refuse folders of this machine for what other nodes of the cluster write and read."""
    if not is_remote(store):
        fix = (
            "name a --store that all nodes share: a folder of a network file system, or a URI such as s3://bucket/runs"
        )
        check_shared(Path(store).absolute(), "the store", fix)
    if (database := sqlite_file(uri)) is not None:
        check_shared(database.parent, "MLflow's SQLite store", "set MLFLOW_TRACKING_URI to an MLflow server")


def _checkpoints_at_once(config: SweepConfig, left: int) -> int:
    """Checkpoints that are there at a time: those that are kept, the baseline's, and one of each running trial."""
    keep = config.search.keep_checkpoints
    return left if keep is None else min(left, keep + 1 + (config.search.concurrent or trials_that_fit(config)))


def _told_before(
    config: SweepConfig, owner: Ownership, journal: Journal, progress: Progress, past: Sequence[Event]
) -> list[Event]:
    """Record the trials of earlier sweeps that the searcher learns from, before its first proposal."""
    if not config.search.warm_start or any(isinstance(event, Proposed) for event in past):
        return []
    known = {(event.sweep, event.source) for event in past if isinstance(event, Learned)}
    found, notes = results_of_earlier(config, owner.store)
    progress.warn(notes)
    return [journal.write(event) for event in found if (event.sweep, event.source) not in known]


def _retried(config: SweepConfig, journal: Journal, records: dict[str, TrialRecord]) -> list[Event]:
    """Let the trials that failed for good run again, but for those whose values cannot be trained at all."""
    failed = [record for record in records.values() if record.status == "failed" and not config.refusal(record.params)]
    events: list[Event] = []
    for record in failed:
        event = journal.write(Retried(id=record.id))
        event.apply(record)
        events.append(event)
    return events


def _share(config: SweepConfig, name: str) -> FairShare:
    grows = grows_on_demand(config.search.wait_minutes) or config.search.concurrent
    demand = Demand(bundles_of_trial(config)) if grows else None
    return FairShare(name, functools.partial(trials_that_fit, config), config.search.concurrent, demand)


def _with_kept_weights(config: SweepConfig, store: Uri, uri: str) -> SweepConfig:
    """The config with its encoder's initial weights in the store, if it has any.

    Read by a Ray task on this node, whose files may be meant; here torch would take half a gigabyte.
    """
    source = config.experiment.encoder.weights
    if source is None:
        return config
    if (path := Path(source).expanduser()).exists():
        config = config.with_values({"encoder.weights": str(path.absolute())})
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": here}
    experiment: Experiment = _result_of(ray.remote(**options)(keep_weights).remote(config.experiment, store, uri))
    return config.model_copy(update={"experiment": experiment})


def _manifest(config: SweepConfig, digest: str, parent: str, began: float) -> dict[str, Any]:
    """The manifest of a sweep without a result; its keys are read by later versions too."""
    return {"file": dump(config), "digest": digest, "parent": parent, "owner": owner(), "began": began}


def _result(
    config: SweepConfig,
    folder: Path,
    store: Uri,
    parent: str,
    found: list[TrialRecord],
    tracker: Tracker,
    progress: Progress,
) -> dict[str, Any]:
    """Evaluate and register the best trial; give the sweep's result."""
    records = sorted(found, key=lambda record: by_number(record.id))
    front = pareto(records, config.search.signs)
    ending = SearchOutcome(folder.name, parent, records, _best(config, records, front), _baseline(records))
    progress.note(f"evaluating {ending.best.id} on the test split, which the search has not used")
    try:
        verdict = evaluate_and_register_best(config, tracker, ending)
    except UserError as error:
        (folder / _END_ERROR).write_text(f"{error.__cause__ or error}\n", encoding="utf-8", errors="replace")
        command = sweep_command("sweep --resume", folder.name, store)
        raise UserError(
            f"{error} (in full: {folder / _END_ERROR}); all trials are kept: run the end again with `{command}`, where "
            "needed with other settings such as register.name=OTHER"
        ) from error
    progress.warn(verdict.pop("warnings", ()))
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


def _digest(config: SweepConfig) -> str:
    return hashlib.sha256(json.dumps(dump(config), sort_keys=True).encode()).hexdigest()[:16]


def _refuse_taken(name: str, local: Path, store: Uri) -> None:
    """Refuse a name that another sweep has: its journal, checkpoints and result would be overwritten."""
    folder = Path(sweep_folder(local, name))
    if not folder.exists():
        return
    manifest = read_manifest(folder)
    if manifest is None and last_token(folder) and not alive(folder, {}, pulse_reader(folder, store)):
        return  # a driver was killed before it had begun
    over = manifest is None or manifest.get("result")
    cure = "" if over else f", resume that one by `{sweep_command('sweep --resume', name, store)}`,"
    raise UserError(f"--name {name}: {folder} is there already; choose another name{cure} or leave --name out")


def _refuse_duplicate(config: SweepConfig, local: Path, store: Uri) -> None:
    for folder, manifest in sweeps(local):
        if (
            manifest["digest"] == _digest(config)
            and not manifest.get("result")
            and alive(folder, manifest, pulse_reader(folder, store))
        ):
            follow, end = (sweep_command(word, folder.name, store) for word in ("status", "stop"))
            raise UserError(
                f"{folder.name}: the very same sweep is running; follow it with `{follow}`, stop it with `{end}`, or "
                "change search.seed for another one"
            )


def _first_set_up(config: SweepConfig) -> Any:
    """Begin to set up one trial, before all of them fail, each several times, from the same mistake."""
    bundle = bundle_of(config.experiment.workers, config.search.cpus, gpus_of_process(config))
    return ray.remote(**task_options(bundle))(set_up).remote(dump(config))


def _result_of(task: Any) -> Any:
    """Wait for a Ray task; give its result, or raise its UserError."""
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        raise


def _best(config: SweepConfig, records: list[TrialRecord], front: list[TrialRecord]) -> TrialRecord:
    """The best of the trials that ran to their end: compared with the baseline at equal training."""
    if not front:
        failed = [record for record in records if record.status == "failed"]
        reason = f"; the last one: {failed[-1].error}" if failed else ""
        raise UserError(f"no trial ran to its end, {len(failed)} of {len(records)} failed{reason}")
    return best_of(front, config.search.signs)


def _baseline(records: list[TrialRecord]) -> TrialRecord | None:
    return next((record for record in records if record.fixed == "baseline" and record.status == "completed"), None)
