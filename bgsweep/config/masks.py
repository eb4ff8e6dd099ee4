"""Settings of `bgsweep masks train`."""

from typing import Annotated, Literal

from pydantic import Field

from bgsweep.config.base import Count, Positive, Section
from bgsweep.config.training import Encoder


class MaskTraining(Section):
    """Self-training from handcrafted masks, after DeepUSPS (Nguyen et al. 2019), whose lengths are in brackets."""

    side: int = Field(128, ge=32, description="side in pixels of images and masks, which are squares [432]")
    images: int = Field(3000, ge=2, description="largest number of images, taken evenly from all [2500]")
    rounds: Count = Field(2, description="rounds of self-training for each handcrafted method [3]")
    epochs: Count = Field(10, description="epochs of each round [25]")
    student_epochs: Count = Field(
        30, description="epochs of the last network, which learns from all refined masks [200]"
    )
    batch_size: int = Field(16, ge=2)
    lr: Positive = Field(1e-3, description="learning rate of Adam, decayed to zero in each round")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.7, description="momentum of the average over predictions [0.7]"
    )
    encoder: Encoder = Field(
        Encoder(name="resnet18", width=32), description="network to train if no checkpoint is given"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = Field(0, ge=0)
