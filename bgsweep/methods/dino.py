"""DINO (Caron et al. 2021): a student predicts what its own moving average, the teacher, makes of other crops."""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bgsweep.config import DINOConfig
from bgsweep.methods.base import (
    Method,
    Step,
    Views,
    ema_update,
    embedding_std,
    encode_crops,
    prototype_entropy,
    swapped_loss,
    target_momentum,
)
from bgsweep.methods.distributed import gather
from bgsweep.models import ImageEncoder, mlp, to_unit

LARGE = 2
"""Number of crops that the teacher sees, too."""


def teacher_temperature(config: DINOConfig, epoch: int) -> float:
    """The teacher's temperature in an epoch, counted from 0: linear over the first epochs, then constant."""
    if epoch >= config.teacher_warmup_epochs:
        return config.teacher_temperature
    share = epoch / max(1, config.teacher_warmup_epochs - 1)
    return config.teacher_temperature_start + share * (config.teacher_temperature - config.teacher_temperature_start)


class DINOHead(nn.Module):
    """Three layers, unit vectors, and their products with prototypes of unit length, or of a length that is learned."""

    def __init__(self, feature_dim: int, config: DINOConfig) -> None:
        super().__init__()
        hidden, dim = config.hidden_dim, config.embedding_dim
        self.mlp = mlp(feature_dim, hidden, dim, batch_norm=config.batch_norm, layers=3, gelu=True)
        self.prototypes = nn.Linear(dim, config.prototypes, bias=False)
        self.lengths = nn.Parameter(torch.ones(config.prototypes, 1), requires_grad=not config.norm_last_layer)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors (N, D), and scores (N, K)."""
        embeddings = F.normalize(self.mlp(features).float(), dim=1)
        with torch.autocast(embeddings.device.type, enabled=False):
            return embeddings, F.linear(embeddings, F.normalize(self.prototypes.weight, dim=1) * self.lengths)


class DINO(Method):
    """DINO with multi-crop. The encoder that is kept and evaluated is the teacher's, as published.

    The teacher's BatchNorm, where the network has any, normalises by the batch, as the student's does; stochastic depth
    and dropout are the student's alone. The centre moves after the step, by the teacher's mean scores of all workers'
    images.
    """

    center: Tensor

    def __init__(self, config: DINOConfig, encoder: ImageEncoder) -> None:
        super().__init__()
        self.config = config
        self.student_encoder = encoder
        self.student_head = DINOHead(encoder.feature_dim, config)
        self.encoder = _without_dropping(copy.deepcopy(encoder)).requires_grad_(False)
        self.head = copy.deepcopy(self.student_head).requires_grad_(False)
        self.register_buffer("center", torch.zeros(1, config.prototypes))
        self._epoch = 0
        self._mean_scores: list[Tensor] = []

    def forward(self, views: Views) -> Step:
        config, self._epoch = self.config, views.epoch
        with torch.no_grad():
            scores = self.head(self.encoder(to_unit(torch.cat(views.images[:LARGE]))))[1]
            logits = (scores - self.center) / teacher_temperature(config, views.epoch)
            targets = logits.softmax(dim=1).view(LARGE, -1, config.prototypes)
        self._mean_scores.append(scores.mean(dim=0, keepdim=True))
        embeddings, scores = self.student_head(encode_crops(self.student_encoder, views.images))
        loss = swapped_loss(scores.view(len(views.images), -1, config.prototypes), targets, config.temperature)
        metrics = {
            "embedding_std": embedding_std(embeddings[: len(views.images[0])]),
            "prototype_entropy": prototype_entropy(logits),
            "target_entropy": torch.special.entr(targets).sum(dim=2).mean() / math.log(config.prototypes),
        }
        return Step(loss, metrics)

    def after_backward(self, step: int) -> None:
        """Freeze the last layer at first; without a gradient neither momentum nor weight decay changes it."""
        if self._epoch < self.config.freeze_last_layer:
            self.student_head.prototypes.weight.grad = self.student_head.lengths.grad = None

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Move the teacher and the centre."""
        momentum = target_momentum(self.config.momentum, progress)
        ema_update(self.encoder, self.student_encoder, momentum)
        ema_update(self.head, self.student_head, momentum)
        mean = gather(torch.cat(self._mean_scores).mean(dim=0, keepdim=True)).mean(dim=0, keepdim=True)
        self.center.lerp_(mean, 1 - self.config.center_momentum)
        self._mean_scores.clear()


def _without_dropping(encoder: ImageEncoder) -> ImageEncoder:
    """The encoder itself; its dropout and stochastic depth, of torch, torchvision or timm, never drop anything."""
    for module in encoder.modules():
        for name in ("p", "drop_prob"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return encoder
