"""The sections of the toys that are configured in an experiment, apart from these, which import torch or more."""

from typing import ClassVar

from pydantic import Field

from bgsweep.config.methods import MethodSection
from bgsweep.config.metrics import MetricSection, Values
from bgsweep.config.plugins import DatasetSection, TransformSection


class ToyConfig(MethodSection):
    """Pulls the two views of an image together."""

    implementation = "toys.method:Toy"
    mutable = ("pull",)
    embedding_dim: int = Field(16, ge=1)
    pull: float = Field(1.0, gt=0, description="factor of the loss")


class DiscsConfig(DatasetSection):
    """Discs of a class's colour on noise."""

    implementation = "toys.dataset:Discs"
    has_masks = True
    count: int = Field(64, ge=8)
    side: int = Field(32, ge=8)


class PosterizeConfig(TransformSection):
    """Fewer levels of colour."""

    implementation = "toys.transform:Posterize"
    bits: int = Field(4, ge=1, le=8)


class SpreadConfig(MetricSection):
    """The distance of features from their mean."""

    implementation = "toys.metric:Spread"
    values: ClassVar[Values] = {"mean": "max", "largest": None}
    power: float = Field(1.0, gt=0)
