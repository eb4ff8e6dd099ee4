"""Hyperparameters of the self-supervised methods (the methods themselves are in `bgsweep.methods`, one file each)."""

from typing import Literal

from pydantic import Field

from bgsweep.config.section import Count, Positive, Probability, Section


class MoCoV2Config(Section):
    """MoCo-v2 (Chen et al. 2020); the defaults are those of the published ImageNet recipe."""

    name: Literal["moco_v2"] = "moco_v2"
    temperature: Positive = 0.2
    queue_size: Count = 65536
    momentum: Probability = Field(0.999, description="of the key encoder's moving average")
    hidden_dim: Count = 2048
    embedding_dim: Count = 128
    symmetric: bool = Field(False, description="each view is query once and key once")
    split_bn: Count = Field(1, description="groups a batch is normalised in; stands in for shuffle-BN on one device")


MethodConfig = MoCoV2Config
