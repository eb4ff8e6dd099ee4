"""Weighted k-nearest-neighbour classification (Wu et al. 2018): how well features cluster by class, untrained.

With k = 20 and T = 0.07 (DINO's) it is the online evaluation: it needs no training and one pass over the images.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bgsweep.config import Knn
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.evaluator import Evaluator, Yields, share
from bgsweep.evaluation.features import Features

# InstDisc's, which lightly's benchmarks use; DINO's.
KNN_SETTINGS = {"knn_lightly": Knn(k=200, temperature=0.1), "knn_dino": Knn(k=20, temperature=0.07)}
# 256 x 65,536 similarities take 64 MB, however large the bank.
_QUERIES, _BANK = 256, 65_536


def knn(context: EvalContext, settings: Knn | None = None) -> Evaluator:
    """`knn_top1`, with the config's k and temperature or with those of a named protocol."""
    chosen = settings or context.config.evaluate.knn
    context.check_images()

    def measure() -> Yields:
        predicted = nearest(context, context.test.values, chosen)
        yield from context.by_image([share("knn_top1", predicted == context.test.labels)])

    return Evaluator(measure, lambda: context.protocol() | knn_protocol(chosen))


def nearest(context: EvalContext, features: Tensor, settings: Knn | None = None) -> Tensor:
    """Classes (N,) of features (N, D) by the user's training images."""
    bank = context.features
    return knn_predict(bank.train(), features, settings or context.config.evaluate.knn, bank.classes)


def knn_protocol(settings: Knn) -> dict[str, str]:
    """Protocol of kNN."""
    return {"knn": f"k {settings.k}, temperature {settings.temperature:g}, cosine"}


def knn_predict(bank: Features, queries: Tensor, settings: Knn, classes: int) -> Tensor:
    """Classes (N,) of query features (N, D): each of the k most similar bank entries votes with exp(cosine / T).

    Both sides are L2-normalised. A bank of fewer than k entries votes as a whole. Of equally near entries the earlier
    in the bank is taken, of equally voted classes the lower.
    """
    votes = [_votes(bank, F.normalize(part, dim=1), settings, classes) for part in queries.split(_QUERIES)]
    return torch.cat(votes).argmax(dim=1)


def _votes(bank: Features, queries: Tensor, settings: Knn, classes: int) -> Tensor:
    best = queries.new_empty(len(queries), 0)
    labels = bank.labels.new_empty(len(queries), 0)
    for entries, entry_labels in zip(bank.values.split(_BANK), bank.labels.split(_BANK), strict=True):
        near, places = _nearest(queries @ F.normalize(entries, dim=1).t(), settings.k)
        # The nearest so far come first, so that they win ties against this later part of the bank.
        labels = torch.cat([labels, entry_labels[places]], dim=1)
        best, places = _nearest(torch.cat([best, near], dim=1), settings.k)
        labels = labels.gather(1, places)
    # Relative to the nearest one no temperature overflows or underflows; a common factor changes no vote.
    weights = ((best.double() - best[:, :1].double()) / settings.temperature).exp()
    return weights.new_zeros(len(queries), classes).scatter_add_(1, labels, weights)


def _nearest(similarities: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest of each row and their columns, from high to low and, where equal, from left to right."""
    k = min(k, similarities.shape[1])
    values, columns = similarities.topk(k, dim=1)
    # topk chooses freely among equals, which matters only where it had to leave some out.
    crowded = (similarities >= values[:, -1:]).sum(dim=1) > k
    columns[crowded] = similarities[crowded].sort(dim=1, descending=True, stable=True).indices[:, :k]
    columns = columns.sort(dim=1).values
    values, order = similarities.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)


EVALUATORS: dict[str, Callable[[EvalContext], Evaluator]] = {
    "knn": knn,
    **{name: partial(knn, settings=settings) for name, settings in KNN_SETTINGS.items()},
}
