"""Weighted k-nearest-neighbour classification (Wu et al. 2018): how well features cluster by class, with no training."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bgsweep.config import Knn
from bgsweep.evaluation.features import Features

# Similarities held at a time; 64 million floats are 256 MB.
_CHUNK = 64_000_000


def knn_predict(bank: Features, queries: Tensor, settings: Knn, classes: int) -> Tensor:
    """Classes (N,) of query features (N, D): each of the k most similar bank entries votes with exp(cosine / T).

    Both sides are L2-normalised. A bank of fewer than k entries votes as a whole; of equal sums the lower class wins.
    """
    entries = F.normalize(bank.values, dim=1).t()
    k = min(settings.k, entries.shape[1])
    predicted = []
    for part in F.normalize(queries, dim=1).split(max(1, _CHUNK // entries.shape[1])):
        similarity, nearest = (part @ entries).topk(k, dim=1)
        votes = torch.zeros(len(part), classes).scatter_add_(
            1, bank.labels[nearest], ((similarity - 1) / settings.temperature).exp()
        )
        predicted.append(votes.argmax(dim=1))
    return torch.cat(predicted)
