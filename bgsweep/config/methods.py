"""Hyperparameters and abilities of the methods, which are in `bgsweep.methods`, one file each."""

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, SerializeAsAny, ValidatorFunctionWrapHandler, WrapValidator

from bgsweep.config.base import Count, NonNegative, Positive, Probability, divisor, multiple
from bgsweep.config.plugins import PartSection, loaded


class MethodSection(PartSection):
    """Base of all methods' sections: what a method supports, which the rest of the configuration is checked against.

    Its `implementation`, a `bgsweep.methods.Method`, is called with the section, the encoder and, if the method
    `needs_labels`, the number of classes.
    """

    group = "bgsweep.methods"

    supports_swaps: ClassVar[bool] = False
    """The method contrasts with negatives, so that BG_Swaps can add some (`methods.Views.swaps`)."""

    supports_small_crops: ClassVar[bool] = False
    """The method trains on small views besides the two large ones (`views.small_crops`)."""

    supports_sync_bn: ClassVar[bool] = True
    """BatchNorm statistics may be shared by all workers (`training.sync_bn`)."""

    needs_labels: ClassVar[bool] = False
    """The method trains on labels."""

    mutable: ClassVar[tuple[str, ...]] = ()
    """Keys that PBT may change during training: they shape neither modules nor buffers."""

    optimizer_defaults: ClassVar[dict[str, Any]] = {}
    """Defaults of the section `optimizer`, where the method diverges with the general ones."""

    @property
    def passes(self) -> tuple[float, float]:
        """Encoder passes of large views in a step, for each image: with gradients, and without (a key or target)."""
        return 2.0, 0.0

    def check_batch(self, batch_size: int, part: int) -> None:
        """Raise `ValueError` if the method cannot use batches of `batch_size`, computed `part` images at a time."""


class MoCoV2Config(MethodSection):
    """MoCo-v2 (Chen et al. 2020); the defaults are those of the published ImageNet recipe."""

    implementation = "bgsweep.methods.moco:MoCoV2"
    supports_swaps = True
    supports_sync_bn = False  # statistics that a query shares with its key would give the key away
    mutable = ("temperature", "momentum")
    name: Literal["moco_v2"] = "moco_v2"
    temperature: Positive = Field(0.2, description="of the softmax over similarities")
    queue_size: Count = Field(65536, description="number of negatives in the queue, over all workers")
    momentum: Probability = Field(0.999, description="momentum of the key encoder's moving average")
    hidden_dim: Count = Field(2048, description="width of the hidden layers of the heads")
    embedding_dim: Count = Field(128, description="dimensions of the embeddings")
    symmetric: bool = Field(False, description="each view is query once and key once")
    split_bn: Count = Field(1, description="groups a batch is normalised in; stands in for shuffle-BN on one device")

    @property
    def passes(self) -> tuple[float, float]:
        return (2.0, 2.0) if self.symmetric else (1.0, 1.0)

    def check_batch(self, batch_size: int, part: int) -> None:
        _check_queue(self.queue_size, batch_size)
        if part % self.split_bn:
            raise ValueError(
                f"method.split_bn {self.split_bn} does not divide a worker's batch of {part}; "
                f"{divisor(self.split_bn, part)} does"
            )


class BYOLConfig(MethodSection):
    """BYOL (Grill et al. 2020); the defaults are those of the published 1000-epoch ImageNet recipe."""

    implementation = "bgsweep.methods.byol:BYOL"
    mutable = ("momentum",)
    name: Literal["byol"]
    momentum: Probability = Field(0.996, description="momentum of the target's moving average at the start; rises to 1")
    hidden_dim: Count = Field(4096, description="width of the hidden layers of the heads")
    embedding_dim: Count = Field(256, description="dimensions of the embeddings")

    @property
    def passes(self) -> tuple[float, float]:
        return 2.0, 2.0


class SwAVConfig(MethodSection):
    """SwAV (Caron et al. 2020); the defaults are those of the published batch-4096 ImageNet recipe."""

    implementation = "bgsweep.methods.swav:SwAV"
    supports_small_crops = True
    mutable = ("temperature", "epsilon", "sinkhorn_iterations")
    name: Literal["swav"]
    temperature: Positive = Field(0.1, description="of the softmax over similarities")
    prototypes: Annotated[int, Field(ge=2)] = 3000
    hidden_dim: Count = Field(2048, description="width of the hidden layers of the heads")
    embedding_dim: Count = Field(128, description="dimensions of the embeddings")
    epsilon: Positive = Field(0.05, description="epsilon of Sinkhorn; lower it if the loss stays at ln(prototypes)")
    sinkhorn_iterations: Count = Field(3, description="iterations of Sinkhorn for the codes")
    freeze_prototypes: int = Field(
        313, ge=0, description="number of first steps in which the prototypes are not trained"
    )
    queue_size: int = Field(
        0, ge=0, description="number of earlier embeddings that are assigned too, over all workers; for small batches"
    )
    queue_start: int = Field(15, ge=0, description="epoch from which the queue is used")

    def check_batch(self, batch_size: int, part: int) -> None:
        _check_queue(self.queue_size, batch_size)


class SimCLRConfig(MethodSection):
    """SimCLR (Chen et al. 2020); the defaults are those of the published batch-4096 ImageNet recipe."""

    implementation = "bgsweep.methods.simclr:SimCLR"
    supports_swaps = True
    mutable = ("temperature",)
    name: Literal["simclr"]
    temperature: Positive = Field(0.1, description="of the softmax over similarities")
    hidden_dim: Count = Field(2048, description="width of the hidden layers of the heads")
    embedding_dim: Count = Field(128, description="dimensions of the embeddings")


class VICRegConfig(MethodSection):
    """VICReg (Bardes et al. 2022); the defaults are those of the published ImageNet recipe."""

    implementation = "bgsweep.methods.vicreg:VICReg"
    mutable = ("invariance", "variance", "covariance")
    # The covariance term grows with the fourth power of the weights: with SGD at 0.03, which MoCo-v2 takes, the loss of
    # 8192 dimensions overflows within five steps, in float32 too. LARS bounds each step by the weights' own norm.
    optimizer_defaults: ClassVar[dict[str, Any]] = {
        "name": "lars",
        "lr": 0.2,
        "weight_decay": 1e-6,
        "decay_all": False,
    }
    name: Literal["vicreg"]
    invariance: NonNegative = Field(25.0, description="weight of the distance between the two views' embeddings")
    variance: NonNegative = Field(25.0, description="weight of the term that keeps each dimension's deviation above 1")
    covariance: NonNegative = Field(1.0, description="weight of the term that decorrelates the dimensions")
    hidden_dim: Count = Field(8192, description="width of the hidden layers of the heads")
    embedding_dim: Count = Field(8192, description="dimensions of the embeddings")


class DINOConfig(MethodSection):
    """DINO (Caron et al. 2021); the defaults are those of the published ImageNet recipe for ViT-S/16 and 300 epochs."""

    implementation = "bgsweep.methods.dino:DINO"
    supports_small_crops = True
    mutable = ("temperature", "teacher_temperature", "momentum", "center_momentum")
    name: Literal["dino"]
    temperature: Positive = Field(0.1, description="the student's")
    teacher_temperature: Positive = Field(0.07, description="the teacher's, after its warm-up; above 0.07 is unstable")
    teacher_temperature_start: Positive = Field(0.04, description="the teacher's, at the start of its warm-up")
    teacher_warmup_epochs: int = Field(30, ge=0, description="epochs in which the teacher's temperature rises")
    momentum: Probability = Field(0.996, description="of the teacher's moving average at the start; rises to 1")
    center_momentum: Probability = Field(0.9, description="of the centre of the teacher's scores")
    prototypes: Annotated[int, Field(ge=2)] = 65536
    hidden_dim: Count = Field(2048, description="width of the hidden layers of the heads")
    embedding_dim: Count = Field(256, description="dimensions of the embeddings")
    batch_norm: bool = Field(False, description="BatchNorm in the head")
    norm_last_layer: bool = Field(
        False, description="prototypes keep length 1; false is published for vit_s_16, and less stable for others"
    )
    freeze_last_layer: int = Field(1, ge=0, description="first epochs in which the last layer is not trained")

    @property
    def passes(self) -> tuple[float, float]:
        return 2.0, 2.0


class SupervisedConfig(MethodSection):
    """Cross-entropy on labels with the same views and background augmentations: the paper's comparison."""

    implementation = "bgsweep.methods.supervised:Supervised"
    needs_labels = True
    mutable = ("label_smoothing",)
    name: Literal["supervised"]
    label_smoothing: Probability = Field(0.0, description="share of the target that is spread over all classes")


_Any = MoCoV2Config | BYOLConfig | SwAVConfig | SimCLRConfig | VICRegConfig | DINOConfig | SupervisedConfig

METHODS: dict[str, type[MethodSection]] = {
    get_args(one.model_fields["name"].annotation)[0]: one for one in get_args(_Any)
}
"""Each built-in method's section by the method's name."""


def method_section(name: str) -> type[MethodSection]:
    """The section of a method by its name.

    Raises:
        UnknownPart: there is no such method.
    """
    return METHODS[name] if name in METHODS else MethodSection.named(name, METHODS)


def method_sections() -> list[type[Any]]:
    """The sections of the built-in methods, and of those of other packages that were named so far."""
    return [*METHODS.values(), *loaded(MethodSection)]


def _by_name(value: Any, built_in: ValidatorFunctionWrapHandler) -> Any:
    return MethodSection.chosen(value, built_in, METHODS)


MethodConfig = Annotated[_Any, Field(discriminator="name"), WrapValidator(_by_name), SerializeAsAny()]


def supporting(ability: str) -> str:
    """The names of the methods whose section says that they support something, for an error."""
    return ", ".join(name for name, one in METHODS.items() if getattr(one, ability))


def _check_queue(queue_size: int, batch_size: int) -> None:
    if queue_size % batch_size:  # a batch must not be split between the queue's end and its start
        raise ValueError(
            f"method.queue_size {queue_size} is not a multiple of training.batch_size {batch_size}; "
            f"{multiple(queue_size, batch_size)} is"
        )
