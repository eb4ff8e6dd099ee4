"""Steps before a sweep's first trial: mistakes that every trial would make, and what the sweep starts from."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bgsweep.addresses import ray_address
from bgsweep.config import Experiment, SweepConfig
from bgsweep.distributed.bundles import bundle_of, task_options
from bgsweep.distributed.demand import Demand
from bgsweep.distributed.resources import gpus_of_process, grows_on_demand
from bgsweep.distributed.shared_folder import check_shared
from bgsweep.distributed.warm import trial_environment
from bgsweep.errors import UserError
from bgsweep.storage.uri import Uri, is_remote
from bgsweep.sweep.capacity import bundles_of_trial, trials_that_fit
from bgsweep.sweep.events import Event, Learned, Proposed, Retried
from bgsweep.sweep.fair_share import FairShare
from bgsweep.sweep.first_set_up import keep_weights, set_up
from bgsweep.sweep.journal import Journal
from bgsweep.sweep.ownership import Ownership
from bgsweep.sweep.progress import Progress
from bgsweep.sweep.trial import dump
from bgsweep.sweep.trial_record import TrialRecord
from bgsweep.sweep.warm_start import results_of_earlier
from bgsweep.tracking.client import sqlite_file


def check_store_is_shared(store: Uri, uri: str) -> None:
    """Refuse folders of this machine for what other nodes of the cluster write and read."""
    if not is_remote(store):
        fix = (
            "name a --store that all nodes share: a folder of a network file system, or a URI such as s3://bucket/runs"
        )
        check_shared(Path(store).absolute(), "the store", fix)
    if (database := sqlite_file(uri)) is not None:
        check_shared(database.parent, "MLflow's SQLite store", "set MLFLOW_TRACKING_URI to an MLflow server")


def begin_first_set_up(config: SweepConfig) -> Any:
    """Begin to set up one trial, before all of them fail, each several times, from the same mistake."""
    bundle = bundle_of(config.experiment.workers, config.search.cpus, gpus_of_process(config))
    return ray.remote(**task_options(bundle), **trial_environment())(set_up).remote(dump(config))


def result_of(task: Any) -> Any:
    """Wait for a Ray task; give its result, or raise its UserError."""
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        raise


def with_kept_weights(config: SweepConfig, store: Uri, uri: str) -> SweepConfig:
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
    experiment: Experiment = result_of(ray.remote(**options)(keep_weights).remote(config.experiment, store, uri))
    return config.model_copy(update={"experiment": experiment})


def share_of_cluster(config: SweepConfig, name: str, store: Uri, uri: str) -> FairShare:
    """The sweep's share, with requests for nodes where the cluster may grow, and a check of those that come."""
    # search.concurrent asks for nodes also where growth is not detected; a Ray that was started here never grows.
    grows = ray_address() and (config.search.concurrent or grows_on_demand(config.search.wait_minutes))
    demand = Demand(bundles_of_trial(config), name) if grows else None
    room, check = functools.partial(trials_that_fit, config), functools.partial(check_store_is_shared, store, uri)
    return FairShare(name, room, config.search.concurrent, demand, check)


def checkpoints_at_once(config: SweepConfig, left: int) -> int:
    """Checkpoints that are there at a time: those that are kept, the baseline's, and one of each running trial."""
    keep = config.search.keep_checkpoints
    return left if keep is None else min(left, keep + 1 + (config.search.concurrent or trials_that_fit(config)))


def learn_from_earlier_sweeps(
    config: SweepConfig, owner: Ownership, journal: Journal, progress: Progress, past: Sequence[Event]
) -> list[Event]:
    """Record the trials of earlier sweeps that the searcher learns from, before its first proposal."""
    if not config.search.warm_start or any(isinstance(event, Proposed) for event in past):
        return []
    known = {(event.sweep, event.source) for event in past if isinstance(event, Learned)}
    found, notes = results_of_earlier(config, owner.store)
    progress.warn(notes)
    return [journal.write(event) for event in found if (event.sweep, event.source) not in known]


def retry_failed_trials(config: SweepConfig, journal: Journal, records: dict[str, TrialRecord]) -> list[Event]:
    """Let the trials that failed for good run again, but for those whose values cannot be trained at all."""
    failed = [record for record in records.values() if record.status == "failed" and not config.refusal(record.params)]
    events: list[Event] = []
    for record in failed:
        event = journal.write(Retried(id=record.id))
        event.apply(record)
        events.append(event)
    return events
