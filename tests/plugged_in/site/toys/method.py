"""A toy."""

import torch.nn.functional as F
from torch import nn

from bgsweep.methods import Method, Step, Views
from bgsweep.methods.base import embedding_std
from bgsweep.models import ImageEncoder, to_unit
from toys.config import ToyConfig


class Toy(Method):
    """An encoder under a linear projection."""

    def __init__(self, config: ToyConfig, encoder: ImageEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.pull = config.pull
        self.projection = nn.Linear(encoder.feature_dim, config.embedding_dim)

    def forward(self, views: Views) -> Step:
        projected = (self.projection(self.encoder(to_unit(images))).float() for images in views.images[:2])
        first, second = (F.normalize(each, dim=1) for each in projected)
        return Step(-self.pull * (first * second).sum(dim=1).mean(), {"embedding_std": embedding_std(first)})
