"""A sweep from its first trial to its registered champion."""

import contextlib
import functools
import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE
from ray.tune.schedulers import TrialScheduler

from bgsweep.config import SweepConfig, resolve, review_search
from bgsweep.config.sweep import sweep_name
from bgsweep.distributed.credentials import KEYS
from bgsweep.distributed.resources import capacity, check_cores, nodes, wait_for_resources
from bgsweep.distributed.session import ray_session
from bgsweep.distributed.train import WORKERS_CURE, gpus_of_worker, worker_bundles, worker_cpus
from bgsweep.errors import UserError, without_password
from bgsweep.storage.layout import sweep_folder, tune_name
from bgsweep.storage.uri import Uri, is_remote, sweep_command
from bgsweep.sweep.callbacks import SweepCallback
from bgsweep.sweep.events import Event, TrialRecord, by_number, replay
from bgsweep.sweep.fair_share import FairShare, FairShareSearcher
from bgsweep.sweep.final_evaluation import SearchOutcome, evaluate_and_register_best
from bgsweep.sweep.guards import DiskGuard, check_room
from bgsweep.sweep.heartbeat import Heartbeat, alive, stop_file
from bgsweep.sweep.journal import Journal, read_journal
from bgsweep.sweep.manifest import check_name, find_sweep, read_manifest, sweeps, write_manifest
from bgsweep.sweep.pareto import best_of, pareto
from bgsweep.sweep.pbt import PBTScheduler
from bgsweep.sweep.progress import Progress
from bgsweep.sweep.report import log_page
from bgsweep.sweep.schedulers import build_scheduler
from bgsweep.sweep.searcher import OptunaSearcher, total_trials, trial_name
from bgsweep.sweep.store import StoreSync, forget_stop, local_store
from bgsweep.sweep.trial import WAITING_CPUS, dump, set_up, trainable
from bgsweep.tracking import Tracker, tracking_uri
from bgsweep.tracking.provenance import owner
from bgsweep.tracking.registry import open_registered_model

_END_ERROR = "end_error.txt"


def sweep(config: SweepConfig, store: Uri, name: str | None = None) -> dict[str, Any]:
    """Search the config's space, judge the best trial beside the baseline, register it, and say what came of it.

    Returns:
        ``sweep``, ``tracking_uri``, ``trials``, ``best``, ``baseline``, ``untrained``, ``model``: plain values. With
        several metrics also ``pareto``: each ``trial`` of the front with its ``values``.

    Raises:
        UserError: the cluster is too small, the same sweep is running, no trial finished.
    """
    review_search(config)
    if config.search.scheduler == "pbt" and is_remote(store):
        raise UserError(f"{store}: pbt copies checkpoints in folders; give a --store that all nodes share, or use asha")
    if config.search.scheduler == "pbt" and config.experiment.data.loader == "cluster":
        raise UserError("search.scheduler: pbt runs all trials at once, without cores kept for data.loader: use asha")
    if name is not None:
        check_name(name)
    uri = tracking_uri(store)
    with local_store(store) as folder:
        if name is not None:
            _refuse_taken(name, folder, store)
        name = name or sweep_name(config.name)
        _refuse_duplicate(config, folder, store)
        return _run(config, Path(sweep_folder(folder, name)), store, uri, None)


def resume(name: str, store: Uri, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Go on with a sweep whose driver died, as if nothing had been; returns and raises as `sweep` does.

    Args:
        overrides: other settings, ``key=value``, of what does not change the search: how trials run, the evaluation
            at the end once all trials have ended, and the registry. With some, the end of a sweep that has come to it
            is run again.
    """
    with local_store(store, name) as place:
        folder, manifest = find_sweep(name, place)
        if manifest.get("result") and not overrides:
            command = sweep_command("sweep --resume", name, store)
            raise UserError(
                f"{name}: the sweep has come to its end; there is nothing to resume. To evaluate and register its best "
                f"trial again, name other settings: `{command} register.name=OTHER`"
            )
        if alive(folder, manifest):
            command = sweep_command("status", name, store)
            raise UserError(f"{name}: the sweep is still running; follow it with `{command}`")
        _check_changes(name, folder, overrides)
        forget_stop(folder, store)
        file = resolve(manifest["file"], overrides, name)
        return _run(file, folder, store, tracking_uri(store), manifest["parent"])


# Settings of how trials run, which neither their values nor their results depend on.
_OF_RUNNING = {"cpus", "gpus", "concurrent", "wait_minutes", "max_failures", "hang_minutes"}


def _check_changes(name: str, folder: Path, overrides: Sequence[str]) -> None:
    """Refuse other settings that would make a sweep's trials differ among one another."""
    running = [record for record in replay(read_journal(folder)).values() if record.status == "running"]
    for override in overrides:
        section, _, rest = override.partition("=")[0].partition(".")
        if section == "register" or (section == "search" and rest in _OF_RUNNING):
            continue
        if section != "evaluate":
            raise UserError(
                f"{override}: cannot change within sweep {name}, whose trials could no longer be compared; start a new "
                f"sweep, or change register.*, evaluate.* or search.{', search.'.join(sorted(_OF_RUNNING))} only"
            )
        if running:
            raise UserError(
                f"{override}: cannot change before all trials of {name} have ended, {len(running)} have not; resume it "
                "without this first"
            )


def _run(config: SweepConfig, folder: Path, store: Uri, uri: str, parent: str | None) -> dict[str, Any]:
    """Run or go on with the sweep whose MLflow run is ``parent`` (None: it begins now).

    ``folder`` holds its journal, ``store`` its checkpoints: the same place unless the store is in an object store.
    """
    several = config.experiment.workers.count > 1
    check_cores(*((config.experiment.workers.cpus, "workers.cpus") if several else (config.search.cpus, "search.cpus")))
    past = read_journal(folder)
    with ray_session(_cpus(config), dashboard=several), contextlib.ExitStack() as opened:
        _admit(config)
        # Before anything waits for capacity: the other sweeps give way only to those that they know of.
        # Trials that wait for views from cores of others' trials could wait for one another.
        warm = not several and config.experiment.data.loader == "local"
        share = FairShare(folder.name, functools.partial(_room, config), config.search.concurrent, warm)
        first = _first_set_up(config)
        tracker = opened.enter_context(Tracker(uri, config.name))  # takes as long, meanwhile
        checkpoint, notes = _refuse_early(first)
        open_registered_model(tracker, config.register_as.name)
        if not is_remote(store):
            ended = sum(record.status != "running" for record in replay(past).values())
            check_room(folder, checkpoint, total_trials(config) - ended)
        parent = tracker.sweep_run(folder.name, config) if parent is None else tracker.reopen(parent)
        start = past[0].time if past else time.time()
        said = {"file": dump(config), "digest": _digest(config), "parent": parent, "owner": owner()}
        manifest: dict[str, Any] = {**said, "began": start}
        write_manifest(folder, manifest)
        with (
            StoreSync(folder, store),
            Heartbeat(folder),
            Progress(folder.name, config, total_trials(config)) as progress,
        ):
            progress.note(f"sweep {folder.name} in {store}")
            for line in notes:
                progress.note(line)
            monitor = SweepCallback(config, Journal(folder), tracker, parent, progress, replay(past))
            monitor.catch_up(past)
            _tune(config, folder, sweep_folder(store, folder.name), monitor, past, share)
            if monitor.disk.full:
                command = sweep_command("sweep --resume", folder.name, store)
                raise UserError(f"{monitor.disk.full}; make room, then go on with `{command}`")
            monitor.close()
            result = {
                "sweep": folder.name,
                "tracking_uri": without_password(uri),
                **_result(config, folder, store, parent, list(monitor.records.values()), tracker, progress),
            }
            log_page(folder, manifest | {"result": result}, tracker)
            write_manifest(folder, manifest | {"result": result})
    return result


def _result(
    config: SweepConfig,
    folder: Path,
    store: Uri,
    parent: str,
    found: list[TrialRecord],
    tracker: Tracker,
    progress: Progress,
) -> dict[str, Any]:
    """What the ended trials have come to, the best one being judged and registered."""
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
    result = {"trials": [record.public() for record in records], **verdict}
    if len(config.search.metrics) > 1:
        result["pareto"] = [
            {"trial": each.id, "values": {metric: each.metrics[metric] for metric in config.search.metrics}}
            for each in front
        ]
    return result


def _digest(config: SweepConfig) -> str:
    return hashlib.sha256(json.dumps(dump(config), sort_keys=True).encode()).hexdigest()[:16]


def _refuse_taken(name: str, place: Path, store: Uri) -> None:
    """A sweep must not write over another one's journal, checkpoints and result."""
    folder = Path(sweep_folder(place, name))
    if not folder.exists():
        return
    manifest = read_manifest(folder)
    over = manifest is None or manifest.get("result")
    cure = "" if over else f", go on with that one by `{sweep_command('sweep --resume', name, store)}`,"
    raise UserError(f"--name {name}: {folder} is there already; choose another name{cure} or leave --name out")


def _refuse_duplicate(config: SweepConfig, place: Path, store: Uri) -> None:
    for folder, manifest in sweeps(place):
        if manifest["digest"] == _digest(config) and not manifest.get("result") and alive(folder, manifest):
            follow, end = (sweep_command(word, folder.name, store) for word in ("status", "stop"))
            raise UserError(
                f"{folder.name}: the very same sweep is running; follow it with `{follow}`, end it with `{end}`, or "
                "change search.seed for another one"
            )


def _first_set_up(config: SweepConfig) -> Any:
    """Begin to set one trial up, before all of them fail, each several times, of the same mistake."""
    gpus = gpus_of_worker(config) if config.experiment.workers.count > 1 else config.search.gpus
    return ray.remote(num_cpus=config.search.cpus, num_gpus=gpus)(set_up).remote(dump(config))


def _refuse_early(first: Any) -> tuple[int, list[str]]:
    """Wait for the trial that is set up first; give what `set_up` does.

    Raises:
        UserError: the trial's own.
    """
    try:
        found: tuple[int, list[str]] = ray.get(first)
        return found
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        raise


class _Stop(tune.Stopper):
    """Ends the search once somebody has put the stop file into the sweep's folder, or the disk is full."""

    def __init__(self, path: Path, disk: DiskGuard) -> None:
        self.path = path
        self.disk = disk

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return bool(self.disk.full) or self.path.exists()


def _tune(
    config: SweepConfig, folder: Path, place: Uri, monitor: SweepCallback, past: list[Event], share: FairShare
) -> None:
    """Search; ``folder`` has the journal, ``place`` the checkpoints."""
    concurrent = config.search.concurrent or _room(config)
    population = config.search.scheduler == "pbt"
    scheduler, to_stop = _scheduler(config, folder, monitor, past, concurrent)
    past = [*past, *map(monitor.end, to_stop)]
    ended = sum(record.status != "running" for record in monitor.records.values())
    if ended == total_trials(config):
        return

    def refuse(config: dict[str, Any], reason: str) -> None:
        monitor.refuse(config, reason)
        if isinstance(scheduler, PBTScheduler):  # which waits for all its members
            scheduler.size -= 1

    proposals = OptunaSearcher(config, past, monitor.journal, refuse)
    # Tune would put these into each trial's runtime environment, which Ray writes into its logs.
    ENV_VARS_TO_PROPAGATE.difference_update(KEYS)
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new output prints a table to stdout, whatever `verbose` says
    # Tune would swallow Ctrl-C and give back what there is, as if the search had come to its end.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    # Trials run where the driver does, so that paths in the config mean the same to both.
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(concurrent)
    tuner = tune.Tuner(
        trainable(config, place),
        tune_config=tune.TuneConfig(
            # A population's trials are all there at once: those that wait for the others would count.
            search_alg=proposals if population else FairShareSearcher(proposals, share),
            scheduler=scheduler,
            num_samples=total_trials(config) - ended,
            reuse_actors=config.experiment.workers.count == 1,
            trial_dirname_creator=trial_name,
        ),
        run_config=tune.RunConfig(
            name=tune_name(),
            storage_path=str(place),
            callbacks=[monitor],
            stop=_Stop(stop_file(folder), monitor.disk),
            failure_config=tune.FailureConfig(max_failures=config.search.max_failures),
            checkpoint_config=_checkpoints(config),
            verbose=0,
        ),
    )
    tuner.fit()


def _scheduler(
    config: SweepConfig, folder: Path, monitor: SweepCallback, past: list[Event], concurrent: int
) -> tuple[TrialScheduler, list[str]]:
    """The search's scheduler, and the running trials that it stops at once."""
    if config.search.scheduler == "pbt":
        size = total_trials(config) - sum(record.status != "running" for record in monitor.records.values())
        return PBTScheduler(config, folder, size, concurrent, monitor.exchanged, past), []
    return build_scheduler(config, past)


def _checkpoints(config: SweepConfig) -> tune.CheckpointConfig:
    if config.experiment.workers.count > 1:
        return tune.CheckpointConfig()
    reports = max(1, config.experiment.training.checkpoint_every // config.evaluate.every)
    return tune.CheckpointConfig(num_to_keep=1, checkpoint_frequency=reports, checkpoint_at_end=True)


def _cpus(config: SweepConfig) -> float:
    return worker_cpus(config) + (WAITING_CPUS if config.experiment.workers.count > 1 else config.search.cpus)


def _bundles(config: SweepConfig) -> list[dict[str, float]]:
    """What one trial asks of the cluster."""
    if config.experiment.workers.count > 1:
        return [*worker_bundles(config), {"CPU": WAITING_CPUS}]
    return [{"CPU": config.search.cpus, "GPU": config.search.gpus}, *worker_bundles(config)]


def _admit(config: SweepConfig) -> None:
    cure = WORKERS_CURE if worker_cpus(config) else "search.cpus or search.gpus"
    times = config.search.concurrent or 1

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    wait_for_resources(_bundles(config), cure, config.search.wait_minutes, tell, times)
    workers = config.experiment.workers
    if workers.count == 1 and workers.device == "auto" and not config.search.gpus and any(map(_gpus, nodes())):
        tell("there are GPUs, but search.gpus: 0 gives trials none; set it to 1, or to a share of one")


def _gpus(node: Mapping[str, float]) -> float:
    return node.get("GPU", 0.0)


_MANY = 4096  # more trials at a time than any sweep has


def _room(config: SweepConfig) -> int:
    """How many trials the whole cluster has capacity for at a time, which Tune does not know of those on Ray Train."""
    return max(1, capacity(nodes(), _bundles(config), _MANY))


def _best(config: SweepConfig, records: list[TrialRecord], front: list[TrialRecord]) -> TrialRecord:
    """The best of the trials that ran to their end: compared with the baseline at equal training."""
    if not front:
        failed = [record for record in records if record.status == "failed"]
        reason = f"; the last one: {failed[-1].error}" if failed else ""
        raise UserError(f"no trial ran to its end, {len(failed)} of {len(records)} failed{reason}")
    return best_of(front, config.search.signs)


def _baseline(records: list[TrialRecord]) -> TrialRecord | None:
    return next((record for record in records if record.fixed == "baseline" and record.status == "completed"), None)
