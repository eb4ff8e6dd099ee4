"""The training loop: trains an experiment one epoch at a time, resumable after any step."""

import contextlib
import logging
import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from bgsweep.augment.color_batched import render
from bgsweep.augment.pipeline import LARGE_VIEWS, ViewPipeline
from bgsweep.config import Experiment
from bgsweep.config.resuming import decisive, told
from bgsweep.config.schedule import at_step
from bgsweep.data.batch import Batch
from bgsweep.data.loader import Batches, BatchFeed
from bgsweep.data.sample import ImageDataset
from bgsweep.data.shared_views import shared_views
from bgsweep.errors import Stopped, UserError
from bgsweep.methods import Step
from bgsweep.methods.base import Views
from bgsweep.seeding import Draw, rng_key
from bgsweep.stopping import Asked, Request, nothing_asked
from bgsweep.training.build import count_classes, distribute, initial_method, place_method
from bgsweep.training.device import Placement
from bgsweep.training.epoch_sums import EpochSums, shares_of_views, timed
from bgsweep.training.optimizer import build_optimizer, clip_gradients
from bgsweep.training.schedule import cosine_with_warmup
from bgsweep.training.stop import StopAgreement
from bgsweep.transfer import ArrivingNumber, send

_log = logging.getLogger(__name__)


class Diverged(UserError):
    """The loss is no longer a number."""

    def __init__(self, what: str) -> None:
        cure = "; try a lower optimizer.lr, more optimizer.warmup_epochs or training.precision: fp32"
        super().__init__(what.removesuffix(cure) + cure)  # called with the whole again where it is unpickled


class Trainer:
    """One experiment on one worker; with several workers each has its own, inside torch's default process group.

    Every random draw has a key of (seed, epoch, image, view), or of (seed, epoch, step) within the network, so that the
    numbers of the epoch and the step are the whole position: resuming from `state_dict` is bit-identical to an
    uninterrupted run, after any step.

    Args:
        asked: asked after each step whether to stop there; on several workers the answers of all of them count.
    """

    def __init__(
        self,
        experiment: Experiment,
        dataset: ImageDataset,
        placement: Placement,
        rank: int = 0,
        world_size: int = 1,
        feed: BatchFeed | None = None,
        asked: Asked = nothing_asked,
    ) -> None:
        self.experiment = experiment
        self.placement = placement
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.step = 0
        loss = self._loss = ArrivingNumber()
        # All workers agree to fail: one that failed alone would leave the others waiting, and its reason could be lost.
        self.stop = StopAgreement(lambda: asked() if math.isfinite(loss.value) else Request.DIVERGED, world_size)
        self._sums = EpochSums()
        self.classes = count_classes(experiment, dataset)
        self.method = place_method(initial_method(experiment, self.classes), experiment.training, placement, world_size)
        self.model = distribute(self.method, placement) if world_size > 1 else self.method
        self.optimizer = build_optimizer(experiment.optimizer, self.method)
        self.scaler = torch.amp.GradScaler(enabled=placement.autocast == torch.float16)
        pipeline = ViewPipeline(experiment.views, experiment.background, experiment.training.epochs)
        self.batches = Batches(
            dataset,
            pipeline,
            batch_size=experiment.training.batch_size,
            seed=experiment.seed,
            rank=rank,
            world_size=world_size,
            workers=experiment.data.loader_workers,
            pin_memory=placement.device.type == "cuda",
            feed=feed,
            memory_gb=experiment.data.loader_memory_gb,
            epochs=experiment.training.epochs,
            shared=shared_views(experiment, dataset, pipeline, rank),
        )
        if rank == 0:
            _log_scaling_rule(experiment)

    def step_epoch(self) -> dict[str, float]:
        """Train one epoch, or what is left of it; returns the whole epoch's mean loss and further metrics.

        Raises:
            Diverged: the loss is not finite, which is found a few steps later, or at the epoch's end.
            Stopped: the run was asked to stop; calling again goes on with the next step.
        """
        self.model.train()
        steps, sums = self.batches.steps_per_epoch, self._sums
        for batch in timed(self.batches.epoch(self.epoch, self.step), sums):
            self._seed_draws()
            sums.add(self._step(batch, self.epoch * steps + self.step), batch.counts)
            self.step += 1
            self._loss.update(sums.totals["loss"])
            request = self.stop.after_step() if self.step < steps else Request.NOTHING
            if request is Request.DIVERGED:
                loss = math.nan if math.isfinite(self._loss.value) else self._loss.value  # nan: another worker's
                raise Diverged(f"the loss is {loss} in epoch {self.epoch + 1}, by step {self.step} of {steps}")
            if request is not Request.NOTHING:
                self._sums.of_workers = self._gathered(sums.totals)
                raise Stopped(self.epoch, self.step, leave=request is Request.LEAVE)
        self.epoch, self.step, self._sums = self.epoch + 1, 0, EpochSums()
        metrics = self._mean(sums.totals)
        if not math.isfinite(metrics["loss"]):
            raise Diverged(f"the loss is {metrics['loss']} in epoch {self.epoch}")
        return {
            **metrics,
            **shares_of_views(sums.counts, LARGE_VIEWS + self.experiment.views.small_crops),
            "lr": self.optimizer.param_groups[0]["lr"],
            "images_per_second": steps * self.experiment.training.batch_size / sums.elapsed,
            "data_wait": sums.waited / sums.elapsed,
        }

    def _seed_draws(self) -> None:
        """Give torch's own draws in this step, such as dropout's, a key of their own."""
        key = rng_key(self.experiment.seed, self.epoch, str(self.step), Draw.TRAINING_STEP, self.rank)
        # Not torch.manual_seed, which formats a stack trace for each call where CUDA has not been used.
        torch.default_generator.manual_seed(key)
        if self.placement.device.type == "cuda":
            torch.cuda.manual_seed(key)

    def _gathered(self, totals: dict[str, Tensor]) -> list[dict[str, float]]:
        """Each worker's sums, for a checkpoint that the first worker writes."""
        stacked = torch.stack(list(totals.values()))
        found = [stacked]
        if self.world_size > 1:
            found = [torch.empty_like(stacked) for _ in range(self.world_size)]
            dist.all_gather(found, stacked)
        return [dict(zip(totals, each.tolist(), strict=True)) for each in found]

    def _step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """One optimiser step; its loss and metrics."""
        total = self.experiment.training.epochs * self.batches.steps_per_epoch
        config = self.experiment.optimizer
        warmup = round(config.warmup_epochs * self.batches.steps_per_epoch)
        rate = config.lr * cosine_with_warmup(step, total, warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.param_groups[0]["weight_decay"] = at_step(config.weight_decay, step, total)
        self.optimizer.zero_grad(set_to_none=True)
        with self.placement.arithmetic():
            metrics = self._backward(batch)
        # Methods get gradients as they are, not multiplied by float16's scale; so does their norm.
        self.scaler.unscale_(self.optimizer)
        self.method.after_backward(step)
        clip_gradients(config, self.method)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.method.after_step(step / total)
        return metrics

    def _backward(self, batch: Batch) -> dict[str, Tensor]:
        """Compute gradients of the mean loss over the batch's parts; workers average them once, after the last part."""
        parts = self.experiment.training.accumulate
        means: dict[str, Tensor] = {}
        for number, views in enumerate(self._views(batch).parts(parts), start=1):
            with self._local_gradients() if number < parts else contextlib.nullcontext():
                with self.placement.context():
                    result: Step = self.model(views)
                self.scaler.scale(result.loss / parts).backward()
            for name, value in {"loss": result.loss.detach(), **result.metrics}.items():
                means[name] = means.get(name, 0) + value.float() / parts
        return means

    def _local_gradients(self) -> contextlib.AbstractContextManager[None]:
        """A context in which gradients are not averaged over the workers."""
        model = self.model
        return model.no_sync() if isinstance(model, DistributedDataParallel) else contextlib.nullcontext()

    def _views(self, batch: Batch) -> Views:
        device = self.placement.device
        images = [send(view, device) for view in (*batch.views, *([] if batch.swaps is None else [batch.swaps]))]
        if batch.photometry is not None:
            color = self.experiment.views.color
            images = [render(view, rows, color) for view, rows in zip(images, batch.photometry, strict=True)]
        return Views(
            images[: len(batch.views)],
            send(batch.labels, device),
            self.epoch,
            None if batch.swaps is None else images[-1],
            batch.swapped,
        )

    def _mean(self, totals: dict[str, Tensor]) -> dict[str, float]:
        """Means over the epoch's steps and over the workers; the host waits for the device this once an epoch."""
        stacked = torch.stack(list(totals.values())) / self.batches.steps_per_epoch
        if self.model is not self.method:
            dist.all_reduce(stacked)
            stacked /= dist.get_world_size()
        return dict(zip(totals, stacked.tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """The complete state of the run: weights, averages, queue, optimiser, position, and the experiment."""
        return {
            "experiment": self.experiment.model_dump(mode="json"),
            "digest": self.experiment.digest,
            "classes": self.classes,
            "epoch": self.epoch,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **({"step": self.step, "sums": self._sums.public()} if self.step else {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume a run from its `state_dict`, or from one that differs in how it was run alone.

        Raises:
            UserError: the state belongs to another experiment.
        """
        if state["digest"] != self.experiment.digest and (reason := why_not_resumable(state, self.experiment)):
            raise UserError(
                f"the checkpoint is of experiment {state['digest']}, not of {self.experiment.digest}: {reason}; "
                "name this experiment's own"
            )
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # none where `precision: auto` was no fp16
            self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.step = state["epoch"], state.get("step", 0)
        self._sums = (
            EpochSums.read(state["sums"], self.rank, self.world_size, self.placement.device)
            if self.step
            else EpochSums()
        )

    def load_exploited(self, state: dict[str, Any]) -> None:
        """Continue from the state of another trial, with this experiment's own settings (population-based training)."""
        groups = self.optimizer.param_groups
        own = [{key: value for key, value in group.items() if key != "params"} for group in groups]
        self.load_state_dict(
            {**state, "digest": self.experiment.digest}
        )  # which brings the other's decay, momentum, ...
        for group, settings in zip(self.optimizer.param_groups, own, strict=True):
            group.update(settings)


def why_not_resumable(state: dict[str, Any], experiment: Experiment) -> str:
    """The reason why a checkpoint of another digest cannot be resumed as an experiment; empty if it can."""
    before = Experiment.model_validate(state["experiment"])
    if before.digest != state["digest"]:
        return "an earlier version wrote it, which computed some of its settings otherwise"
    return told(decisive(before, experiment))


def _log_scaling_rule(experiment: Experiment) -> None:
    rate, size = experiment.optimizer.lr, experiment.training.batch_size
    _log.info("lr %g at batch size %d: by the linear scaling rule that is %g at 256", rate, size, rate * 256 / size)
