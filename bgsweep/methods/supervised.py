"""Cross-entropy on labels, with the views and background augmentations of the self-supervised methods."""

import torch
import torch.nn.functional as F
from torch import nn

from bgsweep.config import SupervisedConfig
from bgsweep.methods.base import Method, Step, Views, embedding_std
from bgsweep.models import ImageEncoder, to_unit


class Supervised(Method):
    """The encoder under a linear classifier; both views of an image go through it in one batch."""

    def __init__(self, config: SupervisedConfig, encoder: ImageEncoder, classes: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.feature_dim, classes)

    def forward(self, views: Views) -> Step:
        labels = views.labels.repeat(len(views.images))
        features = self.encoder(to_unit(torch.cat(views.images)))
        logits = self.classifier(features).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        std = embedding_std(F.normalize(features.float(), dim=1))
        accuracy = (logits.detach().argmax(dim=1) == labels).float().mean()
        return Step(loss, {"embedding_std": std, "train_top1": accuracy})
