"""One run as its driver sees it: an experiment trained epoch by epoch, evaluated online and at its end.

Both homes (in-process and Ray Train) and every trial of a sweep go through `Run`, so that they give the same results.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import cv2
import torch
import torch.distributed as dist
from torch import Tensor

from bgsweep.config import METRICS, SuiteConfig, SweepConfig
from bgsweep.data import Splits, open_splits
from bgsweep.data.cores import take_share, usable_cores
from bgsweep.data.loader import FeedFor, default_loader_workers
from bgsweep.data.memory import keep_freed_memory
from bgsweep.errors import Stopped, UserError, warn_once
from bgsweep.evaluation import Ranks, Report, VariantSet, check, final, online
from bgsweep.evaluation.context import EvalContext, Workers
from bgsweep.evaluation.features import Encode
from bgsweep.storage.layout import CHECKPOINT_FILE, seed_checkpoints
from bgsweep.storage.uri import Uri, downloaded
from bgsweep.training import Trainer, load_checkpoint, save_checkpoint, select_device
from bgsweep.training.checkpoint import TrainedEncoder
from bgsweep.training.encode import frozen_model
from bgsweep.training.stop import Asked, Request, nothing_asked
from bgsweep.training.trainer import Diverged

_LOOKED_AT = 5000  # test images take less than a minute; larger sets are checked by the evaluation itself


class Run:
    """An experiment in training on this worker; `step` goes on to the next online evaluation."""

    def __init__(
        self,
        config: SweepConfig,
        rank: int = 0,
        world_size: int = 1,
        device: str | None = None,
        splits: Splits | None = None,
        feed_for: FeedFor | None = None,
        asked: Asked = nothing_asked,
    ) -> None:
        self.config = config
        self.experiment = config.experiment
        self.rank = rank
        self.splits = splits or open_splits(self.experiment.data)
        check(self.splits, config.evaluate, ["validation"])
        self.placement = select_device(self.experiment, device)
        self.ranks = Ranks(rank, world_size, self.placement.device) if world_size > 1 else None
        self.metrics: dict[str, float] = {}
        self._unevaluated: dict[str, float] | None = None
        feed = feed_for(self.experiment.data) if feed_for else None
        self.training = Trainer(self.experiment, self.splits.train, self.placement, rank, world_size, feed, asked)

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return self.training.epoch

    @property
    def position(self) -> tuple[int, int]:
        """Finished epochs, and steps of the next one."""
        return self.epoch, self.training.step

    @property
    def reported(self) -> int:
        """The last epoch of which `step_epoch` has given the metrics."""
        return int(self.metrics.get("epoch", 0))

    @property
    def finished(self) -> bool:
        """True after the last epoch."""
        return self.epoch >= self.experiment.training.epochs and self._unevaluated is None

    def step_epoch(self) -> dict[str, float]:
        """Train one epoch, or what is left of it; all workers take part in an online evaluation where one is due.

        Raises:
            Stopped: the run was asked to stop; `save` keeps its position, and calling again goes on from there.
        """
        if self._unevaluated is None:
            metrics = self.training.step_epoch()
            if self._evaluation_due():
                self._unevaluated = metrics
                request = self.training.stop.now()
                if request is not Request.NOTHING:
                    raise Stopped(self.epoch, 0, leave=request is Request.LEAVE)
        else:
            metrics = self._unevaluated
        if self._unevaluated is not None:
            found = self.evaluate()
            for name, value in found.items():
                if not math.isfinite(value):
                    raise Diverged(f"{name} is {value} in epoch {self.epoch}")
            metrics = metrics | found
        self._unevaluated = None
        self.metrics = {"epoch": self.epoch, **metrics}
        return self.metrics

    def _evaluation_due(self) -> bool:
        return self.epoch >= self.experiment.training.epochs or self.epoch % self.config.evaluate.every == 0

    def evaluate(self) -> dict[str, float]:
        """Evaluate the encoder as it is, on the validation split, in the precision of the training.

        All workers evaluate the first one's encoder, as checkpoints do: each BatchNorm has its own worker's statistics,
        which training itself never reads, so that overwriting them changes nothing. Only one worker alone stops here.
        """
        encoder, device = self.training.method.encoder, self.placement.device
        for statistics in encoder.buffers() if self.ranks else ():
            dist.broadcast(statistics, 0)
        model = frozen_model(encoder, device, autocast=self.placement.autocast)
        if self.training.world_size == 1:
            model = replace(model, encode=self._stoppable(model.encode))
        threads = self.experiment.data.loader_workers
        return online(
            model,
            self.splits,
            self.config.evaluate,
            self.experiment.views.size,
            self.ranks,
            default_loader_workers() if threads is None else threads,
        )

    def _stoppable(self, encode: Encode) -> Encode:
        def encoded(images: Tensor) -> Tensor:
            if self._unevaluated is not None and (request := self.training.stop.asked()) is not Request.NOTHING:
                raise Stopped(self.epoch, 0, leave=request is Request.LEAVE)
            return encode(images)

        return encoded

    def checkpoint_due(self) -> bool:
        """True if a checkpoint is to be written after the last finished epoch."""
        return self.finished or self.epoch % self.experiment.training.checkpoint_every == 0

    def save(self, folder: Path) -> Path:
        """Write a checkpoint into a folder; return its path."""
        path = folder / CHECKPOINT_FILE
        waiting = {} if self._unevaluated is None else {"unevaluated": self._unevaluated}
        save_checkpoint(path, {**self.training.state_dict(), "metrics": self.metrics, **waiting})
        return path

    def restore(self, folder: Path, foreign: bool = False) -> None:
        """Go on from a checkpoint; a ``foreign`` one may be of an experiment with other settings."""
        state = load_checkpoint(folder / CHECKPOINT_FILE)
        (self.training.load_exploited if foreign else self.training.load_state_dict)(state)
        self.metrics = state["metrics"]
        self._unevaluated = state.get("unevaluated")


class SeededRun:
    """One configuration under several seeds, trained side by side: all of them are at the same epoch.

    The seeds follow on the experiment's own, so that all configurations have the same ones. Values are means over the
    seeds. Beside the loss and each online value, NAME, stand its standard error, ``NAME_se``, and the seeds' own
    values, ``NAME/seed_N``.
    """

    def __init__(
        self,
        config: SweepConfig,
        seeds: int,
        rank: int = 0,
        world_size: int = 1,
        device: str | None = None,
        feed_for: FeedFor | None = None,
        asked: Asked = nothing_asked,
    ) -> None:
        self.config = config
        self.rank = rank
        self.metrics: dict[str, float] = {}
        self.runs: list[Run] = []
        for seed in range(config.experiment.seed, config.experiment.seed + seeds):
            seeded = config.model_copy(update={"experiment": config.experiment.with_values({"seed": seed})})
            splits = self.runs[0].splits if self.runs else None
            self.runs.append(Run(seeded, rank, world_size, device, splits, feed_for, asked))

    @property
    def finished(self) -> bool:
        """True after the last epoch."""
        return self.runs[-1].finished

    def step_epoch(self) -> dict[str, float]:
        """Train each seed for one epoch; give their means and how sure these are.

        Raises:
            Stopped: as of `Run.step_epoch`; the seeds before the one that was training are an epoch further.
        """
        behind = [run for run in self.runs if run.reported < self.runs[0].reported]
        for run in behind or self.runs:
            run.step_epoch()
        self.metrics = self._averaged()
        return self.metrics

    def _averaged(self) -> dict[str, float]:
        if any(run.reported != self.runs[0].reported for run in self.runs):
            return {}  # stopped within an epoch, which some seeds have trained and others not
        return average_over_seeds([run.metrics for run in self.runs], self.config.experiment.seed)

    def checkpoint_due(self) -> bool:
        """True if a checkpoint is to be written after the last finished epoch."""
        return self.runs[0].checkpoint_due()

    def save(self, folder: Path) -> Path:
        """As `Run.save`, for the first seed; the others' are in folders below it."""
        for run, below in self._places(folder):
            run.save(below)
        return folder / CHECKPOINT_FILE

    def restore(self, folder: Path, foreign: bool = False) -> None:
        for run, below in self._places(folder):
            run.restore(below, foreign)
        self.metrics = self._averaged()

    def _places(self, folder: Path) -> list[tuple[Run, Path]]:
        folders = seed_checkpoints(folder, self.config.experiment.seed, len(self.runs))
        return [(run, Path(each)) for run, each in zip(self.runs, folders, strict=True)]


def average_over_seeds(found: Sequence[dict[str, float]], first: int) -> dict[str, float]:
    """Means over the metrics of the seeds from ``first`` on, with standard errors and the seeds' own values."""
    values = {name: mean(each[name] for each in found) for name in found[0]}
    for name in METRICS:
        if name in found[0]:
            values[f"{name}_se"] = stdev(each[name] for each in found) / math.sqrt(len(found))
            values |= {f"{name}/seed_{seed}": each[name] for seed, each in enumerate(found, first)}
    return values


def saved_metrics(checkpoint: Uri, first: int, seeds: int) -> dict[str, float]:
    """The metrics that a run of so many seeds from ``first`` on had reported when it wrote a checkpoint.

    Raises:
        UserError: there is no such checkpoint.
    """
    with downloaded(checkpoint) as folder:
        states = [load_checkpoint(Path(each) / CHECKPOINT_FILE) for each in seed_checkpoints(folder, first, seeds)]
    found: list[dict[str, float]] = [state["metrics"] for state in states]
    return average_over_seeds(found, first) if seeds > 1 else found[0]


def start(
    config: SweepConfig,
    seeds: int = 1,
    rank: int = 0,
    world_size: int = 1,
    device: str | None = None,
    feed_for: FeedFor | None = None,
    asked: Asked = nothing_asked,
) -> Run | SeededRun:
    """A run from its first epoch on, under one seed or several."""
    if seeds == 1:
        return Run(config, rank, world_size, device, feed_for=feed_for, asked=asked)
    return SeededRun(config, seeds, rank, world_size, device, feed_for, asked)


def evaluate_final(
    config: SweepConfig,
    trained: TrainedEncoder,
    splits: Splits | None = None,
    workers: Workers | None = None,
    on_cpu: bool = False,
) -> Report:
    """The final evaluation of an encoder, on the split that no search has seen.

    Args:
        splits: None: those of the encoder's experiment.
        workers: processes, each with a context of `final_context`, that encode large sets.
        on_cpu: leave GPUs alone.
    """
    return final(final_context(config, trained, splits, workers, on_cpu))


def final_context(
    config: SweepConfig,
    trained: TrainedEncoder,
    splits: Splits | None = None,
    workers: Workers | None = None,
    on_cpu: bool = False,
) -> EvalContext:
    """The context of `evaluate_final`, on this process's GPU, if it has one and the experiment may use it."""
    wanted = "cpu" if on_cpu else trained.experiment.workers.device
    found = wanted != "cpu" and torch.cuda.is_available()
    if wanted == "cuda" and not found:
        warn_once("workers.device: cuda, but torch finds no GPU here; the evaluation runs on the CPU")
    device = torch.device("cuda" if found else "cpu")
    suite = SuiteConfig(evaluate=config.evaluate, size=trained.experiment.views.size)
    cores = torch.get_num_threads()
    return EvalContext(
        frozen_model(trained.encoder.to(device), device),
        suite,
        splits or open_splits(trained.experiment.data),
        workers,
        threads=cores if cores > 1 else 0,
    )


def check_final(config: SweepConfig) -> None:
    """Check before a sweep's first trial that `evaluate_final` will be able to run after its last.

    Raises:
        UserError: there are no classes, or the test images or their masks cannot be used.
    """
    splits = open_splits(config.experiment.data)
    if not splits.train.classes:
        raise UserError(
            f"{splits.train.name}: a sweep is decided by accuracy, which needs images in class folders; "
            "without classes use `bgsweep pretrain`"
        )
    check(splits, config.evaluate)
    test = splits.test
    if test.has_masks and len(test) <= _LOOKED_AT and len(set(test.labels.tolist())) > 1:
        VariantSet(test, splits.pools("test"), config.evaluate, config.experiment.views.size)


def checkpoint_bytes(run: Run | SeededRun) -> int:
    """About how large a checkpoint of a run becomes, the optimiser's averages included."""
    runs = run.runs if isinstance(run, SeededRun) else [run]
    method = runs[0].training.method
    kept: int = sum(value.nbytes for value in method.state_dict().values())
    trained: int = sum(value.nbytes for value in method.parameters() if value.requires_grad)
    return len(runs) * (kept + trained * (2 if runs[0].experiment.optimizer.name == "adamw" else 1))


def limit_threads(cpus: float, share: float | None = None) -> None:
    """Let torch use as many threads as the worker has cores; more would compete with other workers.

    Args:
        share: part of the machine that this process's loader may use; None: the whole, shared with workers beside it.
    """
    if share is not None:
        take_share(share)
    torch.set_num_threads(max(1, min(int(cpus), usable_cores())))
    cv2.setNumThreads(0)  # views are made one by one, too small for several threads to pay off
    keep_freed_memory()


def describe(run: Run) -> dict[str, Any]:
    """Device, encoder size and steps per epoch, for the run's record."""
    parameters = sum(p.numel() for p in run.training.method.encoder.parameters())
    return {
        **run.placement.describe(),
        "encoder_parameters": parameters,
        "steps_per_epoch": run.training.batches.steps_per_epoch,
    }
