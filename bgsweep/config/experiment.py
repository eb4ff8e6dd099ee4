"""One pretraining run, described in full: `Experiment` and its sections."""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from bgsweep.config.base import Count, NonNegative, Positive, Probability, Section
from bgsweep.config.methods import MethodConfig, MoCoV2Config, SwAVConfig
from bgsweep.config.schedule import PerView, Schedule, ScheduledPerView, as_schedule, highest
from bgsweep.errors import NO_CREDENTIALS, has_password

Range = tuple[Positive, Positive]


def _ordered(name: str, bounds: tuple[float, float]) -> None:
    if bounds[0] > bounds[1]:
        raise ValueError(f"{name}: the lower bound {bounds[0]} is above the upper bound {bounds[1]}")


def _multiple(value: int, of: int) -> int:
    """The nearest multiple that is not above, for a cure; at least one time."""
    return max(1, value // of) * of


def _divisor(value: int, of: int) -> int:
    """The largest divisor that is not above, for a cure."""
    return next(number for number in range(min(value, of), 0, -1) if of % number == 0)


class Shortcut(Section):
    """Recompose the training photographs so that the background gives the class away."""

    rho: Probability = Field(
        0.95, description="share of photographs whose background comes from their class's own pool"
    )
    seed: int = Field(0, ge=0)


class MaskNoise(Section):
    """Spoil the training photographs' masks on purpose, to see how good masks must be. Pixels are those of `resize`."""

    drop: Probability = Field(0.0, description="share of photographs whose mask is lost: they keep their background")
    other: Probability = Field(0.0, description="share of photographs that get another photograph's mask, scaled")
    box: Probability = Field(0.0, description="share of photographs whose mask becomes its bounding box")
    grow: int = Field(0, ge=-1000, le=1000, description="pixels that all masks are dilated by; negative: eroded")
    blur: NonNegative = Field(0.0, description="sigma in pixels of a Gaussian over all masks: rounds their outlines")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.drop + self.other + self.box > 1:
            raise ValueError("drop, other and box are shares of the same photographs: their sum is above 1; lower one")
        return self

    @property
    def active(self) -> bool:
        return any((self.drop, self.other, self.box, self.grow, self.blur))


class Data(Section):
    """Where images and masks come from. `images: sample` names the photographs that come with bgsweep."""

    images: str = Field("sample", description="folder that holds the splits, or `sample`")
    masks: str | None = Field(None, description="folder that mirrors `images`, with one PNG for each image")
    pack: str | None = Field(None, description="folder or URI that `bgsweep pack` wrote, in place of both")
    pack_cache_gb: NonNegative = Field(20.0, description="local disk for the shards of a pack that a URI names, in GB")
    train: str = Field("train", description="sub-folder of `images`; `.` for the folder itself")
    validation: str | None = Field("validation", description="sub-folder; null holds out a share of `train`")
    test: str | None = Field("test", description="sub-folder; null holds out another share of `train`")
    holdout: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="share of each class that is held out")
    holdout_seed: int = Field(0, ge=0, description="decides which images are held out")
    resize: Count | None = Field(None, description="shorter side in pixels that images are brought to when decoded")
    fast_jpeg: bool = Field(False, description="decode JPEGs with a cheaper DCT, one grey level off on average")
    cache: bool = Field(False, description="keep decoded images in memory, shared by all trials of a process")
    loader: Literal["local", "cluster"] = Field(
        "local", description="who makes views: processes of this machine, or of the Ray cluster's nodes with free cores"
    )
    loader_workers: int | None = Field(None, ge=0, description="processes that make views; null: chosen by the machine")
    shortcut: Shortcut | None = None
    mask_noise: MaskNoise = MaskNoise()

    @field_validator("train", "validation", "test")
    @classmethod
    def _below(cls, split: str | None) -> str | None:
        if split and (split.startswith("/") or ".." in split.split("/")):
            raise ValueError("a split is a sub-folder of data.images; it cannot lead out of it")
        return split

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.validation is None and self.test is None and self.holdout >= 0.5:
            raise ValueError("holdout: with validation and test both held out, less than .5 leaves any for training")
        return self

    @field_validator("images", "masks", "pack")
    @classmethod
    def _no_credentials(cls, place: str | None) -> str | None:
        if place and has_password(place):
            raise ValueError(NO_CREDENTIALS)
        return place

    @property
    def has_masks(self) -> bool:
        return self.images == "sample" or self.masks is not None or self.pack is not None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.pack is not None and (self.images != "sample" or self.masks is not None):
            raise ValueError(
                "pack: holds photographs and masks, so that images and masks cannot be named beside it; leave them out"
            )
        if self.loader == "cluster" and not self.loader_workers:
            raise ValueError(
                "loader: cluster needs loader_workers: how many cores of the cluster make views for each worker"
            )
        return self


class Views(Section):
    """How a view is made from an image. Pairs are (first view, second view); the defaults are MoCo-v2's."""

    size: Count = 224
    scale: Range = (0.2, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    flip: Probability = 0.5
    jitter: tuple[NonNegative, NonNegative, NonNegative, Annotated[float, Field(ge=0, le=0.5)]] = Field(
        (0.4, 0.4, 0.4, 0.1), description="brightness, contrast, saturation, hue"
    )
    jitter_p: Probability = 0.8
    gray: Probability = 0.2
    blur: PerView = 0.5
    blur_sigma: Range = (0.1, 2.0)
    solarize: PerView = 0.0
    interpolation: Literal["linear", "area"] = Field(
        "linear",
        description="of the crop's resize; area antialiases where it shrinks, linear does not: kNN was not better with "
        "area (benchmarks/RESULTS.md), and a photograph takes 1.4 times as long",
    )
    color: Literal["exact", "fast"] = Field(
        "exact", description="exact: torchvision's colour operations; fast: one matrix in their place, hue approximate"
    )
    photometric: Literal["cpu", "device"] = Field(
        "cpu", description="where jitter, grey, blur and solarise are computed"
    )
    small_crops: int = Field(0, ge=0, description="SwAV's multi-crop: how many small views besides the two large ones")
    small_size: Count = 96
    small_scale: Range = (0.05, 0.14)

    @model_validator(mode="after")
    def _check(self) -> Self:
        _ordered("scale", self.scale)
        _ordered("ratio", self.ratio)
        _ordered("blur_sigma", self.blur_sigma)
        _ordered("small_scale", self.small_scale)
        if self.scale[1] > 1 or self.small_scale[1] > 1:
            raise ValueError("scale: a crop cannot cover more than the whole image; let it end at 1.0")
        return self


class Background(Section):
    """Background augmentations (arXiv 2103.12719), each with its probability for a view, or for a pair of views.

    BG_RM and BG_Random are drawn independently; where both fire, the background is removed. Each probability may be a
    schedule over training: `{from: 0.4, to: 0, course: cosine}`.
    """

    remove: ScheduledPerView = Field(0.0, description="BG_RM: the background is filled")
    random: ScheduledPerView = Field(0.0, description="BG_Random: the background is another image's")
    swap: ScheduledPerView = Field(
        0.0,
        description="BG_Swaps: share of images whose key (second view) gets another image's background, while their "
        "query gets a negative on its own",
    )
    swap_form: Literal["full", "negative_only"] = Field(
        "full", description="negative_only: the key keeps its background, and the query gets the negative all the same"
    )
    swap_negative: Literal["silhouette", "foreground"] = Field(
        "silhouette",
        description="silhouette: the query with its foreground filled from another image; foreground: another image's "
        "foreground on the query's background",
    )
    fill: Literal["random_gray", "black", "mean", "noise"] = "random_gray"
    donor: Literal["tiled", "inpainted", "plain"] = Field(
        "tiled",
        description="tiled: from the donor's largest background rectangle; inpainted: the donor with its foreground "
        "painted over; plain: the donor as it is",
    )
    min_area: Probability = Field(0.01, description="views whose foreground covers less keep their background")
    max_area: Probability = Field(0.95, description="views whose foreground covers more keep their background")
    apply_to: Literal["global", "all"] = Field("global", description="`all` includes SwAV's small crops")
    foreground_scale: Annotated[float, Field(ge=1)] = Field(
        1.0,
        description="before a new background the foreground's sides are multiplied by up to this, or divided, drawn "
        "log-uniformly; 1 leaves it as it is",
    )
    foreground_position: int = Field(
        0,
        ge=0,
        le=100,
        description="0: the foreground stays where it is; n: its place in the view is the mean of n uniform draws "
        "(Bates): 1 is uniform, more are nearer the middle",
    )
    blend: Literal["hard", "soft"] = Field(
        "hard", description="hard: each pixel is foreground or background; soft: mixed by the mask's grey levels"
    )
    mask_blur: NonNegative = Field(
        0.0, description="sigma, in pixels of the view, of a Gaussian over the mask: mixes both along the edge"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        _ordered("min_area, max_area", (self.min_area, self.max_area))
        ends = (self.swap.start, self.swap.end) if isinstance(self.swap, Schedule) else (self.swap,)
        if any(isinstance(end, tuple) for end in ends):
            raise ValueError("swap: BG_Swaps is drawn once for an image, so that it takes one probability, not a pair")
        return self

    @property
    def active(self) -> bool:
        """Whether any view can get a background augmentation, so that masks are needed."""
        return any(highest(p) > 0 for p in (self.remove, self.random, self.swap))

    @property
    def scheduled(self) -> bool:
        """Whether any probability changes over training."""
        return any(isinstance(p, Schedule) for p in (self.remove, self.random, self.swap))


class Encoder(Section):
    """The network whose features are wanted."""

    name: str = Field("resnet50", description="resnet10, vit_s_16, a model of torchvision, or timm:NAME")
    width: Count = Field(64, description="channels of the first stage (resnet10 and resnet18 only)")
    stem: Literal["imagenet", "small"] = Field("imagenet", description="small: 3x3 convolution, no pooling (32-64 px)")


class Optimizer(Section):
    """Optimiser and schedule: cosine decay to zero over all steps after a linear warm-up."""

    name: Literal["sgd", "lars", "adamw"] = "sgd"
    lr: Positive = Field(0.03, description="at `batch_size`; nothing rescales it")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="of sgd and lars")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.9, 0.999), description="of adamw"
    )
    weight_decay: NonNegative = 1e-4
    decay_all: bool = Field(True, description="false: biases and norms are neither decayed nor scaled by lars")
    trust: Positive = Field(1e-3, description="trust coefficient of lars")
    warmup_epochs: NonNegative = 0.0


class Training(Section):
    """Length, batch and arithmetic of a run."""

    epochs: Count = 200
    batch_size: Annotated[int, Field(ge=2)] = Field(256, description="images in one optimiser step, over all workers")
    accumulate: Count = Field(1, description="parts that a worker's batch is computed in, one after the other")
    sync_bn: bool = Field(False, description="BatchNorm statistics over the batches of all workers")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where the device computes it natively and the encoder gains by it, else fp32"
    )
    channels_last: bool = True
    compile: bool = False
    checkpoint_every: Count = Field(1, description="epochs between checkpoints")


class Workers(Section):
    """Processes that train one model together; more than one runs on Ray Train with DDP."""

    count: Count = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    cpus: Positive = Field(1.0, description="CPU cores of each worker")
    gpus: NonNegative | None = Field(None, description="GPUs of each worker; null: one where the device is cuda")
    max_failures: int = Field(3, ge=0, description="restarts from the last checkpoint after a worker died")


_ADDED_LATER: dict[str, dict[str, Any]] = {
    "data": {"holdout_seed": 0},
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


class Experiment(Section):
    """Everything that decides what a run computes. Its digest identifies the run and keys its checkpoints."""

    seed: int = Field(0, ge=0)
    data: Data = Data()
    views: Views = Views()
    background: Background = Background()
    method: MethodConfig = MoCoV2Config()
    encoder: Encoder = Encoder()
    optimizer: Optimizer = Optimizer()
    training: Training = Training()
    workers: Workers = Workers()

    @field_validator("method", mode="before")
    @classmethod
    def _default_method(cls, value: Any) -> Any:
        return {"name": "moco_v2", **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        # Not checked in Data: an evaluation suite has no search, and reads train and test alone.
        if self.data.test is not None and self.data.validation == self.data.test:
            raise ValueError(
                f"data.test: {self.data.test!r} is the validation split, by which the search chooses; name another "
                "folder, or `test: null`, which holds a share of train out"
            )
        if self.training.batch_size % self.workers.count:
            raise ValueError(
                f"training.batch_size {self.training.batch_size} is not a multiple of "
                f"workers.count {self.workers.count}; {_multiple(self.training.batch_size, self.workers.count)} is"
            )
        if self.background.active and not self.data.has_masks:
            raise ValueError(
                "background: background augmentations need a foreground mask for every image; set data.masks"
            )
        if self.data.shortcut is not None and not self.data.has_masks:
            raise ValueError("data.shortcut: recomposed photographs need foreground masks; set data.masks")
        if self.data.mask_noise.active and not self.data.has_masks:
            raise ValueError("data.mask_noise: there are no masks to spoil; set data.masks")
        share = self.training.batch_size // self.workers.count
        if share % self.training.accumulate:
            raise ValueError(
                f"training.accumulate {self.training.accumulate} does not divide a worker's batch of {share}; "
                f"{_divisor(self.training.accumulate, share)} does"
            )
        self._check_method(share // self.training.accumulate)
        return self

    def _check_method(self, part: int) -> None:
        method = self.method
        if isinstance(method, MoCoV2Config | SwAVConfig) and method.queue_size % self.training.batch_size:
            raise ValueError(
                f"method.queue_size {method.queue_size} is not a multiple of "
                f"training.batch_size {self.training.batch_size}; "
                f"{_multiple(method.queue_size, self.training.batch_size)} is"
            )
        if method.name == "moco_v2":
            if part % method.split_bn:
                raise ValueError(
                    f"method.split_bn {method.split_bn} does not divide a worker's batch of {part}; "
                    f"{_divisor(method.split_bn, part)} does"
                )
            if self.training.sync_bn:
                raise ValueError("training.sync_bn: moco_v2 hides a key's company from its query; use method.split_bn")
        if highest(self.background.swap) and not method.takes_negatives:
            raise ValueError(f"background.swap: BG_Swaps adds negatives, and {method.name} has none; use moco_v2")
        if method.name != "swav" and self.views.small_crops:
            raise ValueError(f"views.small_crops: only swav takes small crops, not {method.name}; set it to 0")

    @property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical JSON: keys sorted, defaults written out.

        Keys of `_ADDED_LATER` are left out at their defaults, so that checkpoints made before they existed resume;
        but not where the default changed what is computed: with BG_Swaps, or with splits that are held out.
        """
        tree = self.model_dump(mode="json")
        changed = {
            "data": None in (self.data.validation, self.data.test),
            "background": highest(self.background.swap) > 0,
        }
        for section, defaults in _ADDED_LATER.items():
            if not changed.get(section):
                tree[section] = dict(pair for pair in tree[section].items() if pair not in defaults.items())
        canonical = json.dumps(tree, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def without_background(self) -> dict[str, float]:
        """Dotted keys and values that switch off the background augmentations that are on."""
        names = ("remove", "random", "swap")
        return {f"background.{name}": 0.0 for name in names if highest(getattr(self.background, name))}

    def has(self, key: str) -> bool:
        """Whether there is a value under a dotted key: methods differ in theirs."""
        section, _, leaf = key.partition(".")
        return section != "method" or leaf in type(self.method).model_fields

    def value(self, key: str) -> Any:
        """The value under a dotted key."""
        found: Any = self.model_dump()
        for part in key.split("."):
            found = (found if isinstance(found, dict) else as_schedule(found))[part]
        return found

    def with_values(self, values: dict[str, Any]) -> "Experiment":
        """The same run with dotted keys changed, e.g. ``{"background.remove": 0.3}``; validated anew.

        Another method starts from its own defaults: what is set for one means nothing to the next.
        """
        tree = self.model_dump()
        if values.get("method.name", self.method.name) != self.method.name:
            tree["method"] = {}
        for key, value in values.items():
            *path, leaf = key.split(".")
            branch = tree
            for part in path:
                if key.startswith("background.") and not isinstance(branch[part], dict):
                    branch[part] = as_schedule(branch[part])  # `background.random.from` beside `random: 0.2`
                branch = branch[part]
            branch[leaf] = value
        return Experiment.model_validate(tree)


_METHOD_STATE_FREE = ("temperature", "momentum", "epsilon", "sinkhorn_iterations", "label_smoothing")


def mutable(key: str) -> bool:
    """Whether a run may go on with another value of this key: it shapes neither the network nor what is kept of it."""
    section, _, leaf = key.partition(".")
    if section == "method":
        return leaf in _METHOD_STATE_FREE
    return section in ("background", "views") or (section == "optimizer" and leaf != "name")
