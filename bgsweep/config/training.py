"""Sections of an experiment on how it trains: `encoder`, `optimizer`, `training`, `workers`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bgsweep.config.base import Count, GPUs, Label, NonNegative, Positive, Section
from bgsweep.config.schedule import ScheduledNumber
from bgsweep.errors import NO_CREDENTIALS, has_password


class Encoder(Section):
    """The network that is trained, and whose features are used afterwards."""

    name: str = Field("resnet50", description="resnet10, vit_s_16, a torchvision model, or timm:NAME")
    width: Count = Field(64, description="channels of the first stage (resnet10 and resnet18 only)")
    drop_path: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="stochastic depth of a transformer's last block; rises from 0 (vit_…, timm:NAME)"
    )
    stem: Literal["imagenet", "small"] = Field("imagenet", description="small: 3x3 convolution, no pooling (32-64 px)")
    weights: str | None = Field(
        None,
        description="weights to start from: a checkpoint of bgsweep, a file of weights, models:/NAME@ALIAS, runs:/…, "
        "torchvision:NAME or timm:NAME; null: random ones",
    )
    weights_digest: Annotated[str, Field(pattern="^[0-9a-f]{16}$")] | None = Field(
        None, description="digest of `weights`, filled in by the command that reads them; others are then refused"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.weights is not None and has_password(self.weights):
            raise ValueError(f"weights: {NO_CREDENTIALS}")
        if self.weights_digest is not None and self.weights is None:
            raise ValueError("weights_digest: there are no weights; set encoder.weights")
        return self


class Optimizer(Section):
    """Optimiser and schedule: cosine decay to zero over all steps after a linear warm-up.

    Some methods have defaults of their own (`optimizer_defaults`), which hold unless `name` names another optimiser.
    """

    name: Literal["sgd", "lars", "adamw"] = "sgd"
    lr: Positive = Field(0.03, description="learning rate at `batch_size`; it is not rescaled")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="momentum of sgd and lars")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.9, 0.999), description="betas of adamw"
    )
    weight_decay: ScheduledNumber = 1e-4
    decay_all: bool = Field(True, description="false: biases and norms are neither decayed nor scaled by lars")
    trust: Positive = Field(1e-3, description="trust coefficient of lars")
    warmup_epochs: NonNegative = Field(0.0, description="epochs in which the learning rate rises linearly from 0")
    clip_norm: Positive | None = Field(None, description="largest norm of the gradient; longer ones are scaled to it")
    clip_each: bool = Field(False, description="true: clip_norm is that of each parameter tensor's gradient by itself")


class Training(Section):
    """Length, batch and arithmetic of a run."""

    epochs: Count = Field(200, description="passes over the training images")
    batch_size: Annotated[int, Field(ge=2)] = Field(256, description="images in one optimiser step, over all workers")
    accumulate: Count = Field(
        1, description="number of parts in which a worker's batch is computed, one after the other"
    )
    sync_bn: bool = Field(False, description="BatchNorm statistics over the batches of all workers")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="auto: bf16 where the device computes it natively and the encoder gains by it; fp16 on GPUs before "
        "Ampere; else fp32",
    )
    channels_last: bool = Field(True, description="memory layout of images and weights that convolutions are faster in")
    compile: bool = Field(False, description="torch.compile of the network")
    checkpoint_every: Count = Field(1, description="epochs between checkpoints")


class Workers(Section):
    """Processes that train one model together; more than one runs on Ray Train with DDP."""

    count: Count = Field(1, description="processes that train one run together, by Ray Train if there are several")
    min_count: Count | None = Field(
        None, description="fewest workers that go on where nodes are missing, until there are more; null: count"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where there is one")
    cpus: Positive = Field(1.0, description="CPU cores of each worker")
    gpus: GPUs = Field(
        None, description="whole GPUs of each of several workers; null: one where the device is cuda, or auto finds any"
    )
    accelerator_type: str | None = Field(
        None, description="type of the GPU of each worker or trial, as Ray names it (A100, H100); null: any"
    )
    labels: tuple[Label, ...] = Field(
        (), description="KEY=VALUE, each: Ray's labels of the nodes that workers and trials may use"
    )
    memory_gb: Positive | None = Field(
        None, description="memory, in GB, that Ray reserves for each worker, or trial of one worker; null: none"
    )
    max_failures: int = Field(3, ge=0, description="restarts from the last checkpoint after a worker died")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.accelerator_type and self.device == "cpu":
            raise ValueError("accelerator_type: device is cpu, which uses none; leave one of the two out")
        return self
