"""VICReg (Bardes et al. 2022): variance, invariance and covariance of embeddings, without negatives or a teacher."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bgsweep.config import VICRegConfig
from bgsweep.methods.base import Method, Step, Views, embedding_std
from bgsweep.methods.distributed import gather_with_gradient
from bgsweep.models import ImageEncoder, mlp, to_unit


def variance_loss(embeddings: Tensor) -> Tensor:
    """Mean over dimensions of max(0, 1 - sqrt(variance + 1e-4)), for (N, D) embeddings (VICReg, eq. 1)."""
    return F.relu(1 - (embeddings.var(dim=0) + 1e-4).sqrt()).mean()


def covariance_loss(embeddings: Tensor) -> Tensor:
    """Sum of the squared covariances of different dimensions, divided by D, for (N, D) embeddings (VICReg, eq. 4)."""
    centred = embeddings - embeddings.mean(dim=0)
    covariance = centred.t() @ centred / (len(embeddings) - 1)
    return covariance.square().fill_diagonal_(0).sum() / embeddings.shape[1]


class VICReg(Method):
    """VICReg with its expander of three layers.

    Variance and covariance are those of the whole batch, over all workers. The terms are scaled as in the published
    code, which the weights belong to: the squared distance is a mean over dimensions, and the variance term is a mean
    over both views; the paper's equations have sums. With `training.accumulate` each part has statistics of its own.
    """

    def __init__(self, config: VICRegConfig, encoder: ImageEncoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        hidden, dim = config.hidden_dim, config.embedding_dim
        self.expander = mlp(encoder.feature_dim, hidden, dim, batch_norm=True, out_bias=False, layers=3)

    def forward(self, views: Views) -> Step:
        config = self.config
        embeddings = [self.expander(self.encoder(to_unit(images))).float() for images in views.images[:2]]
        with torch.autocast(embeddings[0].device.type, enabled=False):
            invariance = F.mse_loss(*embeddings)
            whole = [gather_with_gradient(view) for view in embeddings]
            variance = (variance_loss(whole[0]) + variance_loss(whole[1])) / 2
            covariance = covariance_loss(whole[0]) + covariance_loss(whole[1])
            loss = config.invariance * invariance + config.variance * variance + config.covariance * covariance
        return Step(loss, {"embedding_std": embedding_std(F.normalize(embeddings[0], dim=1))})
