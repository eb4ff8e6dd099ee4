"""`Experiment`: everything that decides what one training run computes."""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from bgsweep.config.base import Count, GPUs, Label, NonNegative, Positive, Section, divisor, multiple, part_of
from bgsweep.config.columns import Columns
from bgsweep.config.data import Data
from bgsweep.config.mask_format import MaskFormat
from bgsweep.config.methods import MethodConfig, MoCoV2Config, method_sections, supporting
from bgsweep.config.schedule import ScheduledNumber, as_schedule, highest
from bgsweep.config.views import Background, Views
from bgsweep.errors import NO_CREDENTIALS, UserError, has_password


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


_ADDED_LATER: dict[str, dict[str, Any]] = {
    "workers": {"min_count": None},
    "data": {
        "holdout_seed": 0,
        "dataset": None,
        "decode_side": None,
        "mask_format": MaskFormat().model_dump(mode="json"),
        "columns": Columns().model_dump(mode="json"),
    },
    "encoder": {"weights": None, "weights_digest": None, "drop_path": 0.0},
    "optimizer": {"clip_norm": None, "clip_each": False},
    "views": {"extra": [], "albumentations": None},
    "background": {
        "swap_form": "full",
        "swap_negative": "silhouette",
        "foreground_scale": 1.0,
        "foreground_position": 0,
        "blend": "hard",
        "mask_blur": 0.0,
    },
}
"""Keys that did not exist when the first checkpoints were written, with their defaults. Add every new key here."""


STEPS = "views.albumentations."
"""Beginning of the keys of arguments in an Albumentations pipeline, such as `views.albumentations.ColorJitter.p`."""


class Experiment(Section):
    """Everything that decides what a run computes. Its digest identifies the run and keys its checkpoints."""

    seed: int = Field(0, ge=0, description="of weights and of all random draws")
    data: Data = Data()
    views: Views = Views()
    background: Background = Background()
    method: MethodConfig = MoCoV2Config()
    encoder: Encoder = Encoder()
    optimizer: Optimizer = Field(Optimizer(), validate_default=True)
    training: Training = Training()
    workers: Workers = Workers()

    @field_validator("method", mode="before")
    @classmethod
    def _default_method(cls, value: Any) -> Any:
        return {"name": "moco_v2", **value} if isinstance(value, dict) else value

    @field_validator("optimizer", mode="before")
    @classmethod
    def _defaults_of_the_method(cls, value: Any, info: ValidationInfo) -> Any:
        defaults = info.data["method"].optimizer_defaults if "method" in info.data else {}
        if isinstance(value, Optimizer):
            value = value.model_dump(exclude_unset=True)
        applies = isinstance(value, dict) and value.get("name", defaults.get("name")) == defaults.get("name")
        return {**defaults, **value} if applies else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        # Not checked in Data: an evaluation suite has no search, and reads train and test alone.
        if self.data.test is not None and self.data.validation == self.data.test:
            raise ValueError(
                f"data.test: {self.data.test!r} is also the validation split, which the search optimises; name another "
                "folder, or `test: null`, which holds a share of train out"
            )
        if self.training.batch_size % self.workers.count:
            raise ValueError(
                f"training.batch_size {self.training.batch_size} is not a multiple of "
                f"workers.count {self.workers.count}; {multiple(self.training.batch_size, self.workers.count)} is"
            )
        self._check_min_count()
        if (side := self.data.decode_side) is not None and side < self.views.least_side:
            raise ValueError(
                f"data.decode_side: {side} px would leave crops smaller than their views; set it to "
                f"{self.views.least_side} or more"
            )
        if not self.data.has_masks:
            self._check_without_masks()
        self._check_gpus()
        share = self.training.batch_size // self.workers.count
        if share % self.training.accumulate:
            raise ValueError(
                f"training.accumulate {self.training.accumulate} does not divide a worker's batch of {share}; "
                f"{divisor(self.training.accumulate, share)} does"
            )
        self._check_method(share // self.training.accumulate)
        return self

    def _check_without_masks(self) -> None:
        # A misspelt folder beside a recipe for the bundled images also lacks masks; the folder is the first mistake.
        wrong = self.data.missing_images
        if self.background.active:
            raise ValueError(
                f"{wrong}background: background augmentations need a foreground mask for every image; set data.masks"
                f"{self.data.included_masks}"
            )
        if self.data.shortcut is not None:
            raise ValueError(f"{wrong}data.shortcut: recomposed images need foreground masks; set data.masks")
        if self.data.mask_noise.active:
            raise ValueError(f"{wrong}data.mask_noise: there are no masks to degrade; set data.masks")

    def _check_min_count(self) -> None:
        least, count = self.workers.min_count, self.workers.count
        if least is None:
            return
        if least > count or count == 1:
            raise ValueError(
                f"workers.min_count: {least} is not below workers.count {count}; lower it, or leave it out"
            )
        if not self.worker_counts()[:-1]:
            raise ValueError(
                f"workers.min_count: no number from {least} to {count - 1} divides training.batch_size "
                f"{self.training.batch_size} and the groups of method.split_bn times workers.count; change one of them"
            )

    def worker_counts(self) -> list[int]:
        """The numbers of workers that can train this, from `workers.min_count` to `workers.count`."""
        count = self.workers.count
        return [each for each in range(self.workers.min_count or count, count) if self._trains_with(each)] + [count]

    def _trains_with(self, count: int) -> bool:
        try:
            self.with_workers(count)
        except ValueError:
            return False
        return True

    def with_workers(self, count: int) -> "Experiment":
        """The same run by another number of workers: batch and MoCo's groups of BatchNorm stay the same.

        Raises:
            ValueError: they cannot be divided by it.
        """
        if count == self.workers.count:
            return self
        values: dict[str, Any] = {"workers.count": count, "workers.min_count": None}
        if (split := getattr(self.method, "split_bn", None)) is not None:
            groups, rest = divmod(split * self.workers.count, count)
            if rest:
                raise ValueError(f"{split * self.workers.count} groups cannot be divided by {count} workers")
            values["method.split_bn"] = groups
        return self.with_values(values)

    def _check_gpus(self) -> None:
        workers = self.workers
        if workers.count == 1 or workers.device == "cpu" or workers.gpus is None:
            return
        if workers.gpus == 0 and workers.device == "cuda":
            raise ValueError("workers.gpus: 0 gives workers no GPU, and workers.device asks for cuda; leave it out")
        if workers.gpus % 1:
            raise ValueError(
                f"workers.gpus: {workers.gpus:g} would put several workers on one GPU, which NCCL refuses; leave it "
                "out, or use workers.count: 1 with search.gpus for trials that share a GPU"
            )

    def _check_method(self, part: int) -> None:
        """Check what the method does not support; a `part` is the images that one worker computes at a time."""
        method = self.method
        method.check_batch(self.training.batch_size, part)
        if self.training.sync_bn and not method.supports_sync_bn:
            raise ValueError(
                f"training.sync_bn: with {method.name} a query could recognise its key by shared statistics; use "
                "method.split_bn"
            )
        if highest(self.background.swap) and not method.supports_swaps:
            able = supporting("supports_swaps")
            raise ValueError(f"background.swap: BG_Swaps adds negatives, and {method.name} has none; use one of {able}")
        if self.views.small_crops and not method.supports_small_crops:
            able = supporting("supports_small_crops")
            raise ValueError(f"views.small_crops: {method.name} takes none; set it to 0, or use one of {able}")

    @property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical JSON: keys sorted, defaults written out.

        Keys of `_ADDED_LATER` are left out at their defaults, so that checkpoints made before they existed resume;
        but not where the default changed what is computed: with BG_Swaps, or with splits that are held out. Weights to
        start from count by their own digest, wherever they lie.
        """
        tree = self.model_dump(mode="json")
        for key in ("accelerator_type", "labels", "memory_gb"):  # where it runs, which may change when it is resumed
            del tree["workers"][key]
        del tree["background"]["most_kept"]  # whether it runs
        if tree["data"]["loader_memory_gb"] is None:
            del tree["data"]["loader_memory_gb"]
        if tree["encoder"]["weights_digest"] is not None:
            tree["encoder"]["weights"] = None
        changed: dict[str, set[str]] = {
            "data": {"holdout_seed"} if None in (self.data.validation, self.data.test) else set(),
            "background": set(_ADDED_LATER["background"]) if highest(self.background.swap) > 0 else set(),
        }
        for section, defaults in _ADDED_LATER.items():
            kept = changed.get(section, set())
            pairs = tree[section].items()
            tree[section] = {key: value for key, value in pairs if key in kept or (key, value) not in defaults.items()}
        canonical = json.dumps(tree, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def without_background(self) -> dict[str, float]:
        """Dotted keys and values that switch off the background augmentations that are on."""
        names = ("remove", "random", "swap")
        return {f"background.{name}": 0.0 for name in names if highest(getattr(self.background, name))}

    def has(self, key: str) -> bool:
        """True if there is a value under a dotted key: each method has keys of its own."""
        section, _, leaf = key.partition(".")
        if key.startswith(STEPS):  # the configuration need not give all arguments
            try:
                self.value(key)
            except KeyError:
                return False
        return section != "method" or leaf in type(self.method).model_fields

    def value(self, key: str) -> Any:
        """The value under a dotted key."""
        found: Any = self.model_dump()
        for part in key.split("."):
            found = part_of(found if isinstance(found, dict) or key.startswith(STEPS) else as_schedule(found), part)
        return found

    def with_values(self, values: dict[str, Any]) -> "Experiment":
        """The same run with dotted keys changed, e.g. ``{"background.remove": 0.3}``; validated anew.

        Another method starts from its own defaults: its keys of the same name mean something else.
        """
        tree = self.model_dump()
        if values.get("method.name", self.method.name) != self.method.name:
            tree["method"] = {}
        for key, value in values.items():
            *path, leaf = key.split(".")
            branch = tree
            for part in path:
                if path[0] in ("background", "optimizer") and not isinstance(branch[part], dict):
                    branch[part] = as_schedule(branch[part])  # `background.random.from` beside `random: 0.2`
                try:
                    branch = part_of(branch, part)
                except KeyError:
                    raise UserError(f"{key}: the experiment has nothing under {part}; name a key of it") from None
            branch[leaf] = value
        return Experiment.model_validate(tree)


def mutable(key: str) -> bool:
    """True if PBT may change this key during training: it shapes neither the network nor the state that is kept."""
    section, _, leaf = key.partition(".")
    if section == "method":
        return any(leaf in each.mutable for each in method_sections())
    return section in ("background", "views") or (section == "optimizer" and leaf != "name")
