"""Hyperparameters of the self-supervised methods (the methods themselves are in `bgsweep.methods`, one file each)."""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from bgsweep.config.base import Count, Positive, Probability, Section


class MethodSection(Section):
    """What the rest of the configuration asks of every method."""

    takes_negatives: ClassVar[bool] = False
    """Whether the method contrasts with negatives, so that BG_Swaps can add some (`methods.Views.swaps`)."""


class MoCoV2Config(MethodSection):
    """MoCo-v2 (Chen et al. 2020); the defaults are those of the published ImageNet recipe."""

    takes_negatives = True
    name: Literal["moco_v2"] = "moco_v2"
    temperature: Positive = 0.2
    queue_size: Count = 65536
    momentum: Probability = Field(0.999, description="of the key encoder's moving average")
    hidden_dim: Count = 2048
    embedding_dim: Count = 128
    symmetric: bool = Field(False, description="each view is query once and key once")
    split_bn: Count = Field(1, description="groups a batch is normalised in; stands in for shuffle-BN on one device")


class BYOLConfig(MethodSection):
    """BYOL (Grill et al. 2020); the defaults are those of the published 1000-epoch ImageNet recipe."""

    name: Literal["byol"]
    momentum: Probability = Field(0.996, description="of the target's moving average at the start; rises to 1")
    hidden_dim: Count = 4096
    embedding_dim: Count = 256


class SwAVConfig(MethodSection):
    """SwAV (Caron et al. 2020); the defaults are those of the published batch-4096 ImageNet recipe."""

    name: Literal["swav"]
    temperature: Positive = 0.1
    prototypes: Annotated[int, Field(ge=2)] = 3000
    hidden_dim: Count = 2048
    embedding_dim: Count = 128
    epsilon: Positive = Field(0.05, description="of Sinkhorn; lower it if the loss stays at ln(prototypes)")
    sinkhorn_iterations: Count = 3
    freeze_prototypes: int = Field(313, ge=0, description="first steps in which the prototypes stay as they are")
    queue_size: int = Field(0, ge=0, description="earlier embeddings that help small batches, over all workers")
    queue_start: int = Field(15, ge=0, description="epoch from which the queue is used")


class SupervisedConfig(MethodSection):
    """Cross-entropy on labels with the same views and background augmentations: the paper's comparison."""

    name: Literal["supervised"]
    label_smoothing: Probability = 0.0


_Any = MoCoV2Config | BYOLConfig | SwAVConfig | SupervisedConfig
MethodConfig = Annotated[_Any, Field(discriminator="name")]

METHODS: dict[str, type[MethodSection]] = {
    get_args(one.model_fields["name"].annotation)[0]: one for one in get_args(_Any)
}
"""The configuration of each method, by its name."""
