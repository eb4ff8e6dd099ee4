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
from bgsweep.evaluation.evaluator import Evaluator, Yields, per_class, share
from bgsweep.evaluation.features import Features

# InstDisc's, which lightly's benchmarks use; DINO's.
KNN_SETTINGS = {"knn_lightly": Knn(k=200, temperature=0.1), "knn_dino": Knn(k=20, temperature=0.07)}
# 256 x 65,536 similarities take 64 MB, however large the bank.
_QUERIES, _BANK = 256, 65_536


def knn(context: EvalContext, settings: Knn | None = None) -> Evaluator:
    """`knn_top1` and `knn_mean_per_class`, with the config's k and temperature or with those of a named protocol."""
    chosen = settings or context.config.evaluate.knn
    context.check_images()

    def measure() -> Yields:
        predicted = nearest(context, context.test.values, chosen)
        hits, labels = predicted == context.test.labels, context.test.labels
        found = [share("knn_top1", hits), per_class("knn_mean_per_class", hits, labels)]
        yield from context.by_image(found)

    return Evaluator(measure, lambda: context.protocol() | knn_protocol(chosen))


def nearest(context: EvalContext, features: Tensor, settings: Knn | None = None) -> Tensor:
    """Classes (N,) of features (N, D) by the user's training images."""
    cache, device = context.features, context.model.device
    bank, chosen = cache.train(), settings or context.config.evaluate.knn
    return context.by_rank(lambda rows: knn_predict(bank, rows, chosen, cache.classes, device), features)


def knn_protocol(settings: Knn) -> dict[str, str]:
    """Protocol of kNN."""
    return {"knn": f"k {settings.k}, temperature {settings.temperature:g}, cosine"}


@torch.inference_mode()
def knn_predict(
    bank: Features, queries: Tensor, settings: Knn, classes: int, device: torch.device | None = None
) -> Tensor:
    """Classes (N,) of query features (N, D): each of the k most similar bank entries votes with exp(cosine / T).

    Both sides are L2-normalised. A bank of fewer than k entries votes as a whole. Of equally near entries the earlier
    in the bank is taken, of equally voted classes the lower.

    Args:
        device: computes it; None: that of the queries. It holds the queries and a part of the bank at a time.
    """
    device = device or queries.device
    asked = F.normalize(queries.to(device), dim=1)
    best, labels = asked.new_empty(len(asked), 0), bank.labels.new_empty(len(asked), 0, device=device)
    for first in range(0, len(bank), _BANK):
        part = slice(first, first + _BANK)
        entries, entry_labels = F.normalize(bank.rows(part, device), dim=1), bank.labels[part].to(device)
        parts = zip(*(each.split(_QUERIES) for each in (best, labels, asked)), strict=True)
        merged = [_merge(near, named, rows @ entries.t(), entry_labels, settings.k) for near, named, rows in parts]
        best, labels = (torch.cat(column) for column in zip(*merged, strict=True))
    votes = zip(best.split(_QUERIES), labels.split(_QUERIES), strict=True)
    return torch.cat([_voted(*part, settings.temperature, classes) for part in votes]).cpu()


def _merge(best: Tensor, labels: Tensor, similarities: Tensor, entry_labels: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest of those so far and of another part of the bank: similarities and labels, from high to low."""
    near, chosen = _nearest(similarities, k)
    # The nearest so far come first, so that they win ties against this later part of the bank.
    labels = torch.cat([labels, entry_labels[chosen]], dim=1)
    best, chosen = _nearest(torch.cat([best, near], dim=1), k)
    return best, labels.gather(1, chosen)


def _voted(best: Tensor, labels: Tensor, temperature: float, classes: int) -> Tensor:
    # Relative to the nearest one no temperature overflows or underflows; a common factor changes no vote.
    weights = ((best.double() - best[:, :1].double()) / temperature).exp()
    return weights.new_zeros(len(best), classes).scatter_add_(1, labels, weights).argmax(dim=1)


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
