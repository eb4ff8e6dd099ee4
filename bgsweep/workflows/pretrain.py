"""`bgsweep pretrain`: train one experiment under an MLflow run."""

import contextlib
import functools
import shutil
from pathlib import Path
from typing import Any

from bgsweep.config import Experiment, SweepConfig
from bgsweep.config.metric_names import with_new_names
from bgsweep.config.resuming import other_images, told
from bgsweep.distributed.resources import check_cores, say, wait_for_resources
from bgsweep.distributed.session import ray_session
from bgsweep.distributed.system_metrics import log_system_metrics
from bgsweep.distributed.train import WORKERS_CURE, train, worker_bundles, worker_cpus
from bgsweep.errors import UserError, epochs_and_steps, without_password
from bgsweep.storage.layout import pretrain_folder
from bgsweep.storage.uri import Uri
from bgsweep.tracking import Tracker, tracking_uri
from bgsweep.tracking.client import pages

_SHOWN = ("loss", "validation/knn/top1", "embedding_std", "images_per_second", "data_wait")


def pretrain(config: SweepConfig, store: Path, fresh: bool = False) -> dict[str, Any]:
    """Train the config's experiment under an MLflow run; resume where an earlier call was interrupted.

    Where one has trained all epochs, its checkpoint and its run are given again.

    Returns:
        ``metrics`` of the last epoch, ``checkpoint``, ``run_id``, ``tracking_uri``, ``digest``.

    Raises:
        UserError: a mistake in the configuration or data, or resources that the machine lacks.
    """
    from bgsweep.data import notes, open_splits
    from bgsweep.data.fingerprint import fingerprints
    from bgsweep.data.kept_backgrounds import check_views
    from bgsweep.evaluation import check
    from bgsweep.report.run_artifacts import log_inputs
    from bgsweep.tracking.encoders import with_kept_weights
    from bgsweep.training.checkpoint import load_trained
    from bgsweep.training.resume import checkpoints, record_run, recorded_images

    experiment = with_kept_weights(config.experiment, store, tracking_uri(store))
    if experiment.encoder.weights is not None:
        say(f"starts from {config.experiment.encoder.weights}, kept in {experiment.encoder.weights}")
    config = config.model_copy(update={"experiment": experiment})
    folder = pretrain_folder(store, experiment.digest)
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    splits = open_splits(experiment.data)
    check(splits, config.evaluate, ["validation"])  # before anything is started or recorded
    if experiment.background.active:
        check_views(experiment, splits.train)
    images = fingerprints(splits, ["train", "validation"])
    start = None if fresh else _start(folder, experiment, images)
    if experiment.workers.count > 1:
        check_cores(experiment.workers.cpus, "workers.cpus")
    for line in notes(experiment.data):
        say(line)
    cpus = worker_cpus(config)
    session = ray_session(cpus) if cpus else contextlib.nullcontext()
    with Tracker(tracking_uri(store), config.name) as tracker, session:
        if cpus:
            wait_for_resources(worker_bundles(config), WORKERS_CURE, config.search.wait_minutes, say)
        run = None if start is not None else _run_that_trained(tracker, folder, experiment)
        if run is not None:  # nothing is left to train, or to log
            checkpoint = train(config, folder, lambda metrics, checkpoint: None)
        else:
            run = tracker.pretrain_run(f"{config.name}-{experiment.digest}", config)
            log_inputs(tracker, run, config, ["train", "validation"])
            if start is not None or recorded_images(folder) is None or not checkpoints(folder):
                record_run(folder, experiment, images)
            on_epoch = functools.partial(_log_epoch, tracker, run, experiment.training.epochs)
            with log_system_metrics(tracker.address, run):
                checkpoint = train(config, folder, on_epoch, start=start)
    return {
        "metrics": with_new_names(load_trained(checkpoint).metrics),
        "checkpoint": str(checkpoint),
        "run_id": run,
        "tracking_uri": without_password(tracker.address),
        "digest": experiment.digest,
    }


def _run_that_trained(tracker: Tracker, folder: Path, experiment: Experiment) -> str | None:
    """The MLflow run that has the last epoch of an experiment whose training has ended, if any."""
    epochs = experiment.training.epochs
    if not _ended(folder, epochs):
        return None
    mine = f"tags.`bgsweep.digest` = '{experiment.digest}' and tags.`bgsweep.kind` = 'pretrain'"

    def search() -> list[Any]:
        everywhere = [each.experiment_id for each in tracker.client.search_experiments()]
        return pages(tracker.client.search_runs, everywhere, mine)

    runs = [run.info.run_id for run in tracker.ask(search)]
    return next((run for run in runs if tracker.last_epoch(run) >= epochs), None)


def _ended(folder: Path, epochs: int) -> bool:
    """True if a checkpoint below a run's folder has trained all epochs."""
    from bgsweep.training.checkpoint import position_in
    from bgsweep.training.resume import checkpoints

    for each in checkpoints(folder):
        with contextlib.suppress(UserError, LookupError, TypeError):  # damaged: training tells of it, if it needs it
            if position_in(each.parent) >= (epochs, 0):
                return True
    return False


def _log_epoch(tracker: Tracker, run: str, epochs: int, metrics: dict[str, Any], checkpoint: Uri | None) -> None:
    tracker.log_metrics(run, int(metrics["epoch"]), metrics)
    named = with_new_names(metrics)
    shown = "  ".join(f"{name} {named[name]:.4g}" for name in _SHOWN if name in named)
    say(f"epoch {metrics['epoch']}/{epochs}  {shown}")


def _start(folder: Path, experiment: Experiment, images: dict[str, str]) -> Path | None:
    """The checkpoint of another run to go on from, where this one's own is not as far; tells what differs."""
    from bgsweep.training.resume import furthest, recorded_images

    found = furthest(folder.parent, experiment, images)
    if found is None or not found.changes:
        before = recorded_images(folder)
        if found is not None and before is not None and (other := other_images(before, images)):
            say(f"{', '.join(other)}: the images or masks have changed since this run began; --fresh begins anew")
        return None
    if not found.fits:
        what = f"other images or masks in {', '.join(found.other_images)}" if found.recorded else "images not recorded"
        say(f"begins anew: the run in {found.folder} differs in nothing else, but has {what}; {told(found.changes)}")
        return None
    epoch, step = found.position
    say(f"goes on after {epochs_and_steps(epoch, step)} from {found.folder}, with {told(found.changes)}")
    if "training.epochs" in found.changes:
        say(
            f"the learning rate and all schedules now run over {experiment.training.epochs} epochs: this is not the "
            "course of a run that began so; --fresh begins anew"
        )
    if "workers.count" in found.changes and not experiment.training.sync_bn:
        say("each worker's BatchNorm sees a batch of another size now, where the method has not fixed its groups")
    return found.folder
