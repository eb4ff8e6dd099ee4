"""Start or resume a sweep: from its first trial to the registered champion."""

import contextlib
import hashlib
import json
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from ray.tune import TuneError

from bgsweep.addresses import ray_address
from bgsweep.config import SweepConfig, review_search
from bgsweep.config.sweep import sweep_name
from bgsweep.distributed.dashboard import tell_job
from bgsweep.distributed.resources import check_cores
from bgsweep.distributed.session import ray_session
from bgsweep.distributed.system_metrics import log_system_metrics
from bgsweep.distributed.warm import trials_apart
from bgsweep.errors import UserError, without_password
from bgsweep.storage.layout import sweep_folder
from bgsweep.storage.uri import Uri, is_remote, sweep_command
from bgsweep.sweep.budget import BudgetGuard, seconds_of
from bgsweep.sweep.callbacks import SweepCallback
from bgsweep.sweep.capacity import cpus_of_trial, gpus_of_trial, trials_that_fit, wait_for_capacity
from bgsweep.sweep.changes import PARTS, changed, closed, compare_images
from bgsweep.sweep.collect import Collector
from bgsweep.sweep.events import Event, replay
from bgsweep.sweep.fair_share import FairShare
from bgsweep.sweep.guards import check_room
from bgsweep.sweep.heartbeat import WATCH, Heartbeat, alive
from bgsweep.sweep.journal import Journal, read_journal, read_records
from bgsweep.sweep.manifest import check_name, find_sweep, read_manifest, sweeps, write_manifest
from bgsweep.sweep.ownership import Ownership, SweepTaken, last_token
from bgsweep.sweep.preparation import (
    begin_first_set_up,
    check_store_is_shared,
    checkpoints_at_once,
    learn_from_earlier_sweeps,
    result_of,
    retry_failed_trials,
    share_of_cluster,
    with_kept_weights,
)
from bgsweep.sweep.progress import Progress
from bgsweep.sweep.report import log_page
from bgsweep.sweep.result import evaluate_and_sum_up
from bgsweep.sweep.search import run_confirmations, run_search
from bgsweep.sweep.searcher import total_trials
from bgsweep.sweep.selection import confirmations
from bgsweep.sweep.store import StoreSync, forget_stop, local_store, pulse_reader
from bgsweep.sweep.trial import dump
from bgsweep.sweep.trial_record import TrialRecord
from bgsweep.sweep.warm_start import results_of_earlier
from bgsweep.tracking import Tracker, tracking_uri
from bgsweep.tracking.client import prepared
from bgsweep.tracking.provenance import owner
from bgsweep.tracking.registry import open_registered_model


def sweep(config: SweepConfig, store: Uri, name: str | None = None) -> dict[str, Any]:
    """Search the config's space, evaluate the best trial beside the baseline, and register it.

    Returns:
        ``sweep``, ``tracking_uri``, ``run_page`` (of MLflow, after its server's address), ``trials``, ``best``,
        ``baseline``, ``untrained``, ``model``: plain values. With several metrics also ``pareto``: each ``trial`` of
        the front with its ``values``. With `search.confirm` also ``confirmation`` (`bgsweep.sweep.result`).

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
            a sweep that has ended they repeat the final evaluation and the registration; no trial is trained unless
            `search.trials`, `search.budget` or `search.confirm` asks for it, also after `bgsweep stop`.
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
        manifest["closed"] = closed(manifest, overrides, retry_failed)
        manifest.setdefault("evaluate", manifest["file"].get("evaluate", {}))
        over, measured = manifest["closed"], manifest["evaluate"]
        config = changed(name, manifest["file"], overrides, read_records(folder), over, measured, retry_failed)
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
        prepared(uri, create=ray_address() is None),
        ray_session(cpus_of_trial(config), dashboard=several),
        contextlib.ExitStack() as opened,
    ):
        past = read_journal(folder)
        records = replay(past)
        asked = _digest(config)
        config = with_kept_weights(config, store, uri)
        wait_for_capacity(config)
        check_store_is_shared(store, uri)
        opened.enter_context(trials_apart(config))
        # Its process starts while that of the share does, and MLflow is opened.
        first = begin_first_set_up(config)
        # Before the first trial: other sweeps make room only for those they know of.
        share = opened.enter_context(share_of_cluster(config, folder.name, store, uri))
        tracker, images, notes = _check_first(opened, config, first, owner, uri, before, records)
        parent = tracker.sweep_run(folder.name, config) if before is None else tracker.reopen(before["parent"])
        tell_job(mlflow=tracker.address_of(parent), sweep=folder.name)
        budget = BudgetGuard(config, gpus_of_trial(config), seconds_of(past), records, trials_that_fit(config))
        manifest = _manifest(config, asked, parent, past[0].time if past else time.time()) | {
            "images": (before or {}).get("images") or images,
            "budget": budget.manifest(),
            "closed": (before or {}).get("closed", []),
            "evaluate": (before or {}).get("evaluate", dump(config)["evaluate"]),
        }
        owner.check()
        write_manifest(folder, manifest)
        opened.enter_context(log_system_metrics(uri, parent))
        progress = opened.enter_context(Progress(folder.name, config, total_trials(config) + confirmations(config)))
        progress.note(f"sweep {folder.name} in {store}")
        progress.warn(notes)
        progress.budget = budget.told
        journal = Journal(folder, owner, records, total_trials(config))
        past += learn_from_earlier_sweeps(config, owner, journal, progress, past)
        if retry_failed:
            past += retry_failed_trials(config, journal, records)
        collector = Collector(config, sweep_folder(store, folder.name), journal)
        opened.callback(collector.close)
        monitor = SweepCallback(config, journal, tracker, parent, progress, records, collector, share.trials)
        with _abandoned_if_lost(owner, tracker):
            _train(config, owner, monitor, past, share, budget, manifest["closed"])
            result = _end(config, owner, monitor, share, manifest)
        write_manifest(folder, manifest | {"closed": PARTS, "result": result})
    return result


def _check_first(
    opened: contextlib.ExitStack,
    config: SweepConfig,
    first: Any,
    owner: Ownership,
    uri: str,
    before: dict[str, Any] | None,
    records: dict[str, TrialRecord],
) -> tuple[Tracker, dict[str, str], list[str]]:
    """Open MLflow while one trial is set up, by the task ``first``; check registry, images and disk.

    Returns:
        The tracker, the images' fingerprints, and notes for the user.
    """
    tracker = opened.enter_context(Tracker(uri, config.name))
    checkpoint, notes, images = result_of(first)
    if before is not None:
        notes += compare_images(owner.folder.name, before, config, images)
    open_registered_model(tracker, config.register_as.name)
    if not is_remote(owner.store):
        ended = sum(record.status != "running" for record in records.values())
        check_room(owner.folder, checkpoint, checkpoints_at_once(config, total_trials(config) - ended))
    return tracker, images, notes


@contextlib.contextmanager
def _abandoned_if_lost(owner: Ownership, tracker: Tracker) -> Iterator[None]:
    """A context in which the loss of the sweep to another driver is told as such, and nothing more goes to MLflow."""
    try:
        yield
    except (SweepTaken, TuneError):  # Tune wraps what its callbacks raise
        if owner.lost():
            tracker.abandon()
            owner.check()
        raise


def _train(
    config: SweepConfig,
    owner: Ownership,
    monitor: SweepCallback,
    past: list[Event],
    share: FairShare,
    budget: BudgetGuard,
    over: Collection[str],
) -> None:
    """Run the trials that have not ended, but for those of the parts that are over (`bgsweep.sweep.changes.closed`)."""
    folder, store = owner.folder, owner.store
    monitor.catch_up(past)
    if past and monitor.collector:
        monitor.collector.tidy(monitor.records)
    target = sweep_folder(store, folder.name)
    if "search" not in over:
        run_search(config, folder, target, monitor, past, share, budget)
    if not (monitor.disk.full or share.refused or "confirm" in over):
        run_confirmations(config, folder, target, monitor, share, budget)
    if monitor.disk.full:
        command = sweep_command("sweep --resume", folder.name, store)
        raise UserError(f"{monitor.disk.full}; free some space, then resume with `{command}`")
    if share.refused:
        raise UserError(f"{share.refused}; then resume with `{sweep_command('sweep --resume', folder.name, store)}`")
    monitor.close()


def _end(
    config: SweepConfig, owner: Ownership, monitor: SweepCallback, share: FairShare, manifest: dict[str, Any]
) -> dict[str, Any]:
    """Evaluate and register the best trial; give the result."""
    folder, store, tracker = owner.folder, owner.store, monitor.tracker
    if any(record.status == "completed" for record in monitor.records.values()):  # without one there is no end
        owner.check()
        write_manifest(folder, manifest | {"closed": PARTS})
    share.begin(lambda: 1)  # the final evaluation; the other sweeps take the rest
    if monitor.collector:
        monitor.collector.tidy(monitor.records)
    result = {
        "sweep": folder.name,
        "tracking_uri": without_password(tracker.address),
        "run_page": tracker.page(monitor.parent),
        **evaluate_and_sum_up(config, folder, store, monitor),
    }
    owner.check()
    monitor.overview.finish(monitor.records, result)
    log_page(folder, manifest | {"result": result}, tracker)
    owner.check()
    return result


def _manifest(config: SweepConfig, digest: str, parent: str, began: float) -> dict[str, Any]:
    """The manifest of a sweep without a result; its keys are read by later versions too."""
    return {"file": dump(config), "digest": digest, "parent": parent, "owner": owner(), "began": began}


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
