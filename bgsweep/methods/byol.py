"""BYOL (Grill et al. 2020): predict the target network's projection of one view from the other view."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bgsweep.config import BYOLConfig
from bgsweep.methods.base import Method, Step, Views, ema_update, embedding_std, target_momentum
from bgsweep.models import ImageEncoder, mlp, to_unit


def byol_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance of the L2-normalised rows of two (N, D) tensors: 2 - 2 cos, in [0, 4] (BYOL, eq. 2)."""
    return 2 - 2 * F.cosine_similarity(prediction.float(), target.float(), dim=1).mean()


class BYOL(Method):
    """BYOL with the symmetric loss, which lies in [0, 8].

    Each view is a batch of its own, as published: BatchNorm statistics over both views would be another method. The
    target starts as a copy of the online network; the authors' code initialises it independently.
    """

    def __init__(self, config: BYOLConfig, encoder: ImageEncoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        hidden, dim = config.hidden_dim, config.embedding_dim
        self.projector = mlp(encoder.feature_dim, hidden, dim, batch_norm=True, out_bias=False)
        self.predictor = mlp(dim, hidden, dim, batch_norm=True, out_bias=False)
        self.target_network = copy.deepcopy(self.online_network).requires_grad_(False)

    @property
    def online_network(self) -> nn.Sequential:
        """The trained network: encoder and projector, without the predictor."""
        return nn.Sequential(self.encoder, self.projector)

    def forward(self, views: Views) -> Step:
        first, second = (to_unit(images) for images in views.images)
        projections = [self.online_network(first), self.online_network(second)]
        with torch.no_grad():
            targets = [self.target_network(second), self.target_network(first)]
        predictions = [self.predictor(projection) for projection in projections]
        loss = byol_loss(predictions[0], targets[0]) + byol_loss(predictions[1], targets[1])
        return Step(loss, {"embedding_std": embedding_std(F.normalize(projections[0].float(), dim=1))})

    def after_step(self, progress: float) -> None:
        ema_update(self.target_network, self.online_network, target_momentum(self.config.momentum, progress))
