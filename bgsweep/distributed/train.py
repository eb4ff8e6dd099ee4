"""Train one experiment: in this process for one worker, on Ray Train for several."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bgsweep.config import SweepConfig, resolve
from bgsweep.errors import Stopped, collected_warnings
from bgsweep.storage.layout import CHECKPOINT_FILE, ray_train_run
from bgsweep.storage.uri import Uri, downloaded, uri_of

OnEpoch = Callable[[dict[str, Any], Uri | None], None]
"""Called with an epoch's metrics and, if a checkpoint was written, its folder."""

OnKept = Callable[[Uri], None]
"""Called with the folder of a checkpoint within an epoch."""

STOPPED_AT = "stopped_at"  # epochs and steps, in what a worker reports with a checkpoint within an epoch
RESTORED = "restored"  # metrics of epochs, in what a worker reports of the checkpoint that it continues from

WORKERS_CURE = "workers.count, workers.cpus, workers.gpus or, with data.loader: cluster, data.loader_workers"


def train(
    config: SweepConfig,
    folder: Uri,
    on_epoch: OnEpoch,
    seeds: int = 1,
    start: Uri | None = None,
    pulse: tuple[tuple[str, str], str] | None = None,
    on_kept: OnKept | None = None,
    known: int | None = None,
) -> Uri:
    """Train the config's experiment from the newest checkpoint in ``folder``; returns the last checkpoint's folder.

    More ``seeds`` than one train side by side, on several workers only. A ``start`` is the checkpoint of a run that
    differs only in how it was run: where ``folder`` has none that is further, it is continued.

    With a ``pulse``, the first two arguments of `Pulse`, the first of several workers gives signs of life, and
    ``on_kept`` is called with each checkpoint within an epoch that the sweep's driver has asked for.

    Several workers that are resumed first report the epochs of their checkpoint after the ``known`` one: their last
    driver may have died before it heard of them.

    The process's first SIGTERM ends the training at its next step, with a checkpoint of that position in ``folder``.

    Raises:
        UserError: the configuration or data cannot be used, as shown only by training.
        WorkersFailed: of several workers, some died or did not start, too often.
        Stopped: there was a SIGTERM.
    """
    if config.experiment.workers.count == 1:
        return _train_here(config, Path(folder), on_epoch, start)
    from bgsweep.distributed.ray_train import RayTraining

    return RayTraining(config, folder, on_epoch, seeds, start, pulse, on_kept, known).run()


def _train_here(config: SweepConfig, folder: Path, on_epoch: OnEpoch, start: Uri | None) -> Path:
    from bgsweep.distributed.view_workers import ray_feed
    from bgsweep.stopping import leave_on_sigterm
    from bgsweep.training.run import Run, limit_threads

    # Not on Ray Train: that takes 12 s to start and end a run, and processes of half a gigabyte each.
    with leave_on_sigterm() as asked:
        run = Run(config, feed_for=ray_feed, asked=asked)
        limit_threads(config.experiment.workers.cpus)
        if (folder / CHECKPOINT_FILE).exists():
            run.restore(folder)
        if _continue(run, start) and run.finished:  # the other run has no epoch left for this one
            run.save(folder)
            on_epoch(run.metrics, folder)
        while not run.finished:
            try:
                metrics = run.step_epoch()
            except Stopped:
                run.save(folder)
                raise
            due = run.checkpoint_due()
            if due:
                run.save(folder)
            on_epoch(metrics, folder if due else None)
    return folder


def _continue(run: Any, start: Uri | None) -> bool:
    """Restore a run from the checkpoint of another one that is further, if it is."""
    from bgsweep.training.checkpoint import position_in

    if start is None:
        return False
    with downloaded(start) as folder:
        further: bool = position_in(folder) > run.position
        if further:
            run.restore(folder)
    return further


def ray_trainer(config: SweepConfig, count: int, folder: Uri, reports: Any, loop: dict[str, Any]) -> Any:
    """A run of Ray Train that continues from the last checkpoint in the folder.

    Args:
        count: number of workers.
        reports: a queue, for what workers report.
        loop: the rest of what `_train_and_report` reads.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from bgsweep.distributed.bundles import ray_labels, ray_resources

    one = one_worker(config)
    resized = config.model_copy(update={"experiment": config.experiment.with_workers(count)})
    storage, name = ray_train_run(folder)
    return TorchTrainer(
        _worker,
        train_loop_config={"config": resized.model_dump(mode="json", by_alias=True), **loop},
        scaling_config=ScalingConfig(
            num_workers=count,
            use_gpu=one["GPU"] > 0,
            resources_per_worker=ray_resources(one),
            label_selector=ray_labels(one) or None,  # type: ignore[call-arg]
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage,
            # No retries: `RayTraining` counts failures, waits for lost nodes and starts again, with fewer workers too.
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),  # type: ignore[call-arg]
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            callbacks=[_forward_to(reports)],
        ),
    )


def one_worker(config: SweepConfig) -> dict[str, float]:
    """Resources of one worker of a trial: of the trial itself where that has one only."""
    from bgsweep.distributed.bundles import bundle_of
    from bgsweep.distributed.resources import gpus_of_process

    workers = config.experiment.workers
    return bundle_of(workers, workers.cpus if workers.count > 1 else config.search.cpus, gpus_of_process(config))


def worker_bundles(config: SweepConfig, count: int | None = None) -> list[dict[str, float]]:
    """The resources of one experiment: its workers (or so many of them), if they run on Ray Train, and view workers."""
    several = config.experiment.workers.count
    count = several if count is None else count
    each = [one_worker(config)] * count if several > 1 else []
    return each + [{"CPU": 1.0}] * (_view_makers(config) * count // several)


def worker_cpus(config: SweepConfig) -> float:
    """Total CPUs of `worker_bundles`, without asking the cluster; 0 if the experiment does not use Ray."""
    workers = config.experiment.workers
    return (workers.count * workers.cpus if workers.count > 1 else 0) + _view_makers(config)


def _view_makers(config: SweepConfig) -> int:
    data = config.experiment.data
    return config.experiment.workers.count * (data.loader_workers or 0) if data.loader == "cluster" else 0


def _forward_to(reports: Any) -> Any:
    from ray.train import UserCallback

    class Forward(UserCallback):
        """Forwards the first worker's metrics and checkpoint, and all warnings; runs in Ray Train's controller."""

        def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
            warnings = [line for each in metrics for line in each["warnings"]]
            first = {name: value for name, value in metrics[0].items() if name != "warnings"}
            reports.put((first, uri_of(checkpoint.path, checkpoint.filesystem) if checkpoint else None, warnings))

    return Forward()


def _worker(config: dict[str, Any]) -> None:
    """Training loop of each of Ray Train's workers."""
    with collected_warnings() as warnings:
        _train_and_report(config, warnings)


def _train_and_report(config: dict[str, Any], warnings: list[str]) -> None:
    import ray.train

    from bgsweep.data.sharing import Sharing, share_within
    from bgsweep.distributed.preemption import WorkerRequests
    from bgsweep.distributed.pulse import Pulse, in_words
    from bgsweep.distributed.resources import assigned_device, machine_share
    from bgsweep.distributed.view_workers import ray_feed
    from bgsweep.training.run import limit_threads
    from bgsweep.training.seeded_run import start

    resolved = resolve(config["config"])
    context = ray.train.get_context()
    limit_threads(resolved.experiment.workers.cpus, machine_share())
    ranks = context.get_world_rank(), context.get_world_size(), assigned_device()
    run: Any = None
    pulse = None
    if config["pulse"]:
        board, trial = config["pulse"]
        share_within(Sharing(repr(board), trial, resolved.search.share_views))
        if ranks[0] == 0:
            pulse = Pulse(board, trial, lambda: in_words(run.position))
    requests = WorkerRequests(config["stops"] if ranks[0] == 0 else None, pulse)
    run = start(resolved, config["seeds"], *ranks, feed_for=ray_feed, asked=requests)
    last = ray.train.get_checkpoint()
    if last is not None:
        with last.as_directory() as path:
            run.restore(Path(path))
    reports = _Reports(run, warnings)
    known = config["known"]
    missed = [] if known is None else [metrics for metrics in run.history if metrics["epoch"] > known]
    if last is not None and missed:
        reports.report({RESTORED: missed, "checkpoint": uri_of(last.path, last.filesystem)}, checkpoint=False)
    if _continue(run, config["start"]) and run.finished:
        reports.report(run.metrics, checkpoint=True)
    while not run.finished:
        try:
            reports.report(run.step_epoch(), run.checkpoint_due())
            requests()
        except Stopped as stopped:
            reports.report({STOPPED_AT: (stopped.epoch, stopped.step)}, checkpoint=True)
            if stopped.leave:
                return
            requests.done()


class _Reports:
    """One worker's reports to Ray Train; those of the first worker carry checkpoints."""

    def __init__(self, run: Any, warnings: list[str]) -> None:
        self._run, self._warnings = run, warnings
        self._folder: Path | None = None

    def report(self, metrics: dict[str, Any], checkpoint: bool) -> None:
        """Report metrics, with a checkpoint of the run as it is where that is wanted; all workers must call this."""
        import ray.train

        written = None
        if checkpoint and self._run.rank == 0:
            while self._folder and self._folder.exists():  # uploads to a slow store must not fill this machine's disk
                time.sleep(0.05)
            self._folder = Path(tempfile.mkdtemp())
            self._run.save(self._folder)
            written = ray.train.Checkpoint.from_directory(self._folder)
        told = {**metrics, "warnings": list(self._warnings)}
        self._warnings.clear()
        # Once an epoch: a report waits for the controller's next poll. Uploads are asynchronous, since a synchronous
        # one held all workers for half a second an epoch (ResNet-18, local disk).
        ray.train.report(
            told,
            checkpoint=written,
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=True,
        )
