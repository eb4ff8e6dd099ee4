"""A cheap subject with a classifier of 1000 classes: fixed random weights on the mean colours of a grid."""

import torch
from torch import Tensor, nn

from bgsweep.config import Evaluate, SuiteConfig
from bgsweep.data import Splits
from bgsweep.evaluation import Report, final
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.features import Encode
from bgsweep.evaluation.frozen_model import FrozenModel
from tests.evaluation.conftest import colours


class Colours(nn.Module):
    """The encoder `colours`, from images (N, 3, H, W) in [0, 1]."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)


def model_of(encode: Encode = colours) -> FrozenModel:
    """A model without a classifier, for evaluators that need nothing but features."""
    return FrozenModel(encode, Colours(), torch.device("cpu"))


def subject(seed: int = 0, spread: float = 10.0) -> FrozenModel:
    """Its classes differ from image to image, and from seed to seed."""
    weight = spread * torch.randn(48, 1000, generator=torch.Generator().manual_seed(seed))
    return FrozenModel(colours, Colours(), torch.device("cpu"), lambda features: (features - 0.5) @ weight)


def judged(model: FrozenModel, splits: Splits, settings: Evaluate, size: int) -> Report:
    """A model's final evaluation."""
    return final(EvalContext(model, SuiteConfig(evaluate=settings, size=size), splits))
