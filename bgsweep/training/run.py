"""One run as its driver sees it: an experiment trained epoch by epoch, evaluated online and at its end.

Both homes (in-process and Ray Train) and every trial of a sweep go through `Run`, or
`bgsweep.training.seeded_run.SeededRun` over several, so that they give the same results.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import torch
import torch.distributed as dist
from torch import Tensor

from bgsweep.config import SweepConfig
from bgsweep.data import Splits, open_splits
from bgsweep.data.cores import take_share, usable_cores
from bgsweep.data.loader import FeedFor, default_loader_workers
from bgsweep.data.memory import keep_freed_memory
from bgsweep.errors import Stopped
from bgsweep.evaluation import Ranks, check
from bgsweep.evaluation.features import Encode
from bgsweep.evaluation.online import online
from bgsweep.stopping import Asked, Request, nothing_asked
from bgsweep.storage.layout import CHECKPOINT_FILE
from bgsweep.training import Trainer, load_checkpoint, save_checkpoint, select_device
from bgsweep.training.encode import frozen_model
from bgsweep.training.trainer import Diverged


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
        self.evaluated = config.measured
        check(self.splits, self.evaluated, ["validation"])
        self.placement = select_device(self.experiment, device)
        self.ranks = Ranks(rank, world_size, self.placement.device) if world_size > 1 else None
        self.history: list[dict[str, float]] = []
        self._unevaluated: dict[str, float] | None = None
        feed = feed_for(self.experiment.data) if feed_for else None
        self.training = Trainer(self.experiment, self.splits.train, self.placement, rank, world_size, feed, asked)

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the last epoch that has ended; empty before."""
        return self.history[-1] if self.history else {}

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
        self.history.append({"epoch": self.epoch, **metrics})
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
        model = replace(model, encode=self._stoppable(model.encode))
        threads = self.experiment.data.loader_workers
        return online(
            model,
            self.splits,
            self.evaluated,
            self.experiment.views.size,
            self.ranks,
            default_loader_workers() if threads is None else threads,
        )

    def _stoppable(self, encode: Encode) -> Encode:
        stops = self.training.world_size == 1 and self._unevaluated is not None

        def encoded(images: Tensor) -> Tensor:
            request = self.training.stop.asked()  # on several workers a sign of life only
            if stops and request is not Request.NOTHING:
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
        told = {"metrics": self.metrics, "history": self.history}
        save_checkpoint(path, {**self.training.state_dict(), **told, **waiting})
        return path

    def restore(self, folder: Path, foreign: bool = False) -> None:
        """Go on from a checkpoint; a ``foreign`` one may be of an experiment with other settings."""
        state = load_checkpoint(folder / CHECKPOINT_FILE)
        (self.training.load_exploited if foreign else self.training.load_state_dict)(state)
        last = state["metrics"]
        self.history = list(state.get("history", [last] if last else []))  # versions before had the last epoch only
        self._unevaluated = state.get("unevaluated")


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
