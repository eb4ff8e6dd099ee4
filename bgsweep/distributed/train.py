"""Train one experiment: in this process for one worker, on Ray Train for several."""

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bgsweep.config import SweepConfig, resolve
from bgsweep.errors import Stopped, UserError, collected_warnings, warn_once
from bgsweep.storage.layout import CHECKPOINT_FILE
from bgsweep.storage.uri import Uri, downloaded, uri_of

OnEpoch = Callable[[dict[str, Any], Uri | None], None]
"""Called with an epoch's metrics and, if a checkpoint was written, its folder."""

Start = tuple[Uri, tuple[int, int]]
"""A checkpoint's folder, and the epochs and further steps that it has trained."""

AT_ALL = (0, 1)
"""The position of a `Start` that is further than none at all."""

_STOPPED_AT = "stopped_at"  # epochs and steps, in what a worker reports with a checkpoint within an epoch

WORKERS_CURE = "workers.count, workers.cpus, workers.gpus or, with data.loader: cluster, data.loader_workers"


def train(config: SweepConfig, folder: Uri, on_epoch: OnEpoch, seeds: int = 1, start: Start | None = None) -> Uri:
    """Train the config's experiment from the newest checkpoint in ``folder``; returns the last checkpoint's folder.

    More ``seeds`` than one train side by side, on several workers only. A ``start`` is the checkpoint of a run that
    differs only in how it was run: where ``folder`` has none that is further, it is continued.

    The process's first SIGTERM ends the training at its next step, with a checkpoint of that position in ``folder``.

    Raises:
        UserError: the configuration or data cannot be used, as shown only by training.
        Stopped: there was a SIGTERM.
    """
    if config.experiment.workers.count == 1:
        return _train_here(config, Path(folder), on_epoch, start)
    return _train_on_ray(config, folder, on_epoch, seeds, start)


def _train_here(config: SweepConfig, folder: Path, on_epoch: OnEpoch, start: Start | None) -> Path:
    from bgsweep.distributed.view_workers import ray_feed
    from bgsweep.training.run import Run, limit_threads
    from bgsweep.training.stop import leave_on_sigterm

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


def _continue(run: Any, start: Start | None) -> bool:
    """Restore a run from the checkpoint of another one that is further, if it is."""
    if start is None or start[1] <= run.position:
        return False
    with downloaded(start[0]) as folder:
        run.restore(folder)
    return True


def _train_on_ray(config: SweepConfig, folder: Uri, on_epoch: OnEpoch, seeds: int, start: Start | None = None) -> Uri:
    """Run Ray Train in a thread, so that this one can report epochs as they finish."""
    from ray.util.queue import Queue

    from bgsweep.training.stop import Request, leave_on_sigterm

    # 0 CPUs: the queues' actors must not take a core that the trial was given.
    reports, stops = (Queue(actor_options={"num_cpus": 0}) for _ in range(2))
    trainer = _trainer(config, folder, reports, stops, seeds, start)
    outcome: list[Any] = []

    def fit() -> None:
        try:
            outcome.append(trainer.fit())
        except BaseException as error:  # raised below, in the caller's thread
            outcome.append(error)
        reports.put(None)

    with leave_on_sigterm() as asked:
        # A daemon, so that Ctrl-C in the caller ends the process although the thread waits for Ray.
        threading.Thread(target=fit, name="ray-train", daemon=True).start()
        stopped = _follow(reports, on_epoch, lambda: asked() is Request.LEAVE, stops)
    for queue in (reports, stops):
        queue.shutdown()
    result = outcome[0]
    if isinstance(result, BaseException):
        cause = _cause(result)
        raise cause from (None if cause is result else result)  # its own cause has no end, and Ray looks for it
    if stopped is not None:
        raise stopped
    return uri_of(result.checkpoint.path, result.checkpoint.filesystem)


def _follow(reports: Any, on_epoch: OnEpoch, asked: Callable[[], bool], stops: Any) -> Stopped | None:
    """Pass on what workers report until their end, and a request to leave to them; give where they left, if so."""
    from ray.util.queue import Empty

    seen, told = 0, False
    stopped: Stopped | None = None
    while True:
        if asked() and not told:
            stops.put(True)
            told = True
        try:
            report = reports.get(timeout=0.5)
        except Empty:
            continue
        if report is None:
            return stopped
        metrics, checkpoint, warnings = report
        for line in warnings:
            warn_once(line)
        if _STOPPED_AT in metrics:
            if told:
                stopped = Stopped(*metrics[_STOPPED_AT])
        elif metrics["epoch"] > seen:  # after a restart the epochs since the checkpoint are reported again
            seen = metrics["epoch"]
            on_epoch(metrics, checkpoint)


def _trainer(config: SweepConfig, folder: Uri, reports: Any, stops: Any, seeds: int, start: Start | None) -> Any:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from bgsweep.distributed.bundles import ray_labels, ray_resources

    workers = config.experiment.workers
    one = one_worker(config)
    above, _, name = str(folder).rpartition("/")
    return TorchTrainer(
        _worker,
        train_loop_config={
            "config": config.model_dump(mode="json", by_alias=True),
            "seeds": seeds,
            "stops": stops,
            "start": start,
        },
        scaling_config=ScalingConfig(
            num_workers=workers.count,
            use_gpu=one["GPU"] > 0,
            resources_per_worker=ray_resources(one),
            label_selector=ray_labels(one) or None,  # type: ignore[call-arg]
        ),
        run_config=RunConfig(
            name=name,
            storage_path=above,
            # Ray's default of -1 restarts for ever a worker group that cannot start; an infeasible request would hang
            # the sweep.
            failure_config=FailureConfig(max_failures=workers.max_failures, controller_failure_limit=3),  # type: ignore[call-arg]
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


def worker_bundles(config: SweepConfig) -> list[dict[str, float]]:
    """The resources of one experiment: its workers, if they run on Ray Train, and its view workers."""
    several = config.experiment.workers.count
    each = [one_worker(config)] * several if several > 1 else []
    return each + [{"CPU": 1.0}] * _view_makers(config)


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

    from bgsweep.distributed.preemption import WorkerRequests
    from bgsweep.distributed.resources import assigned_device, machine_share
    from bgsweep.distributed.view_workers import ray_feed
    from bgsweep.training.run import limit_threads
    from bgsweep.training.seeded_run import start

    resolved = resolve(config["config"])
    context = ray.train.get_context()
    limit_threads(resolved.experiment.workers.cpus, machine_share())
    ranks = context.get_world_rank(), context.get_world_size(), assigned_device()
    requests = WorkerRequests(config["stops"] if ranks[0] == 0 else None)
    run = start(resolved, config["seeds"], *ranks, feed_for=ray_feed, asked=requests)
    last = ray.train.get_checkpoint()
    if last is not None:
        with last.as_directory() as path:
            run.restore(Path(path))
    reports = _Reports(run, warnings)
    if _continue(run, config["start"]) and run.finished:
        reports.report(run.metrics, checkpoint=True)
    while not run.finished:
        try:
            reports.report(run.step_epoch(), run.checkpoint_due())
        except Stopped as stopped:
            reports.report({_STOPPED_AT: (stopped.epoch, stopped.step)}, checkpoint=True)
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


def _cause(error: BaseException) -> BaseException:
    """The `UserError` of a worker if there is one, else the error itself."""
    failures = getattr(error, "worker_failures", {})
    for failure in failures.values():
        inner = getattr(failure, "cause", failure)
        if isinstance(inner, UserError):
            return inner
    return error
