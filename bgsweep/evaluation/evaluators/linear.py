"""Linear probe: softmax regression on frozen features, many learning rates and decays trained at once.

Features are computed once, so that the whole grid costs less than one pass of the encoder over the images.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from bgsweep.config import Linear
from bgsweep.data.readable import in_order
from bgsweep.evaluation.context import EvalContext, even_parts
from bgsweep.evaluation.evaluator import Evaluator, Yields, per_class, tops
from bgsweep.evaluation.features import Features
from bgsweep.seeding import Draw, rng_key

BATCH_SIZE = 256
MOMENTUM = 0.9
_BLOCK = 65_536  # rows whose moments are taken at once: 0.5 GB of a ResNet-50's features
_LOGITS = 1 << 26  # numbers, 0.25 GB
_AHEAD = 4  # batches that are fetched while the device computes
_LEAST_STD = 1e-6

Grid = list[tuple[float, float]]
"""Pairs of a rate and a decay."""
Score = Callable[[Grid], Tensor]


@dataclass(frozen=True)
class LinearHead:
    """A trained probe with the rate and decay that the held-out part of the training features chose."""

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor
    lr: float
    weight_decay: float
    held_out_top1: float

    def logits(self, features: Tensor) -> Tensor:
        """Of every class (N, C), from features (N, D)."""
        return (features - self.mean) / self.std @ self.weight + self.bias

    def predict(self, features: Tensor) -> Tensor:
        """Classes (N,) of features (N, D)."""
        return self.logits(features).argmax(dim=1)


def linear(context: EvalContext) -> Evaluator:
    """`linear_top1`, `_top5` and `_mean_per_class`, the probe's rate and decay chosen on a part held out of train."""
    context.check_images()

    def measure() -> Yields:
        logits = linear_head(context).logits(context.test.values)
        labels = context.test.labels
        yield from context.by_image(tops("linear", logits, labels))
        yield from context.by_image([per_class("linear_mean_per_class", logits.argmax(dim=1) == labels, labels)])

    return Evaluator(measure, lambda: context.protocol() | linear_protocol(linear_head(context), context))


def linear_head(context: EvalContext) -> LinearHead:
    """The linear probe on the user's training images, trained once for all evaluators."""

    def fit() -> LinearHead:
        cache, settings = context.features, context.config.evaluate.linear
        train = cache.train()
        score = partial(_scores_apart, context, train, settings) if context.shared_out(len(train)) else None
        return fit_linear(train, settings, cache.classes, context.model.device, score)

    head: LinearHead = context.once("linear probe", fit)
    return head


def linear_protocol(head: LinearHead, context: EvalContext) -> dict[str, Any]:
    """Protocol of the linear probe: how it was trained, and what it chose."""
    settings = context.config.evaluate.linear
    return {
        "linear": f"softmax regression, {settings.epochs} epochs of SGD on standardised features; rate and decay "
        f"chosen on {settings.holdout:.0%} of train, drawn by class",
        "linear_grid": f"rates {_listed(settings.lrs)}; decays {_listed(settings.weight_decays)}",
        "linear_seed": settings.seed,
        "linear_lr": head.lr,
        "linear_weight_decay": head.weight_decay,
        "linear_held_out_top1": head.held_out_top1,
    }


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def fit_linear(
    train: Features, settings: Linear, classes: int, device: torch.device | None = None, score: Score | None = None
) -> LinearHead:
    """Train all pairs of rate and decay on a part of the features, choose by the rest, train the chosen on all of them.

    Features are standardised by the training features' mean and standard deviation. Of equally good pairs the one of
    the lower rate, then the lower decay, is chosen.

    Args:
        device: trains the probe; None: the CPU. Features that take up less than half of its free memory are copied to
            it, others are fetched batch by batch.
        score: gives the held-out accuracy of every pair, as `_score` does; None computes it here.
    """
    source = _Source(train, device or torch.device("cpu"))
    grid = sorted(product(settings.lrs, settings.weight_decays))
    scores = score(grid) if score is not None else _score(source, grid, settings, classes)
    best = int(scores.argmax())
    lr, weight_decay = grid[best]
    weight, bias = _train(source, torch.arange(len(train)), [(lr, weight_decay)], settings, classes)
    mean, std, chosen, offset = (each.cpu() for each in (source.mean, source.std, weight[0], bias[0]))
    return LinearHead(mean, std, chosen, offset, lr, weight_decay, scores[best].item())


def _scores_apart(context: EvalContext, train: Features, settings: Linear, grid: Grid) -> Tensor:
    """As `_score`, each rank or worker for a share of the grid: pairs do not depend on one another."""
    task = partial(_score_here, train=train, settings=settings, classes=context.features.classes)
    shares = [grid[part.start : part.stop] for part in even_parts(len(grid), min(len(grid), context.processes))]
    return torch.cat(list(context.each(task, shares, len(train))))


def _score_here(context: EvalContext, grid: Grid, train: Features, settings: Linear, classes: int) -> Tensor:
    return _score(_Source(train, context.model.device), grid, settings, classes)


class _Source:
    """Standardised features and labels, batch by batch, on a device."""

    def __init__(self, train: Features, device: torch.device) -> None:
        self.device = device
        self.there = device.type == "cpu" or train.nbytes < torch.cuda.mem_get_info(device)[0] / 2
        self.features = train.to(device) if self.there else train
        self.mean, self.std = self._moments()

    def batches(self, parts: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Features (N, D) and labels (N,) of the rows in each part."""
        for values, labels in in_order(self._fetch, parts, 0 if self.there else 1, _AHEAD):
            yield (values.to(self.device) - self.mean) / self.std, labels.to(self.device)

    def _fetch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        rows = rows.to(self.features.labels.device)
        return self.features.rows(rows), self.features.labels[rows]

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each feature; of many rows by blocks (Chan, Golub & LeVeque 1979)."""
        blocks = (
            self.features.rows(slice(first, first + _BLOCK), self.device)
            for first in range(0, len(self.features), _BLOCK)
        )
        if len(self.features) <= _BLOCK:
            (block,) = blocks
            return block.mean(dim=0), block.std(dim=0).clamp_min(_LEAST_STD)
        count, mean, squares = 0, torch.zeros(1), torch.zeros(1)
        for block in blocks:
            size, total = len(block), count + len(block)
            own = block.mean(dim=0).double()
            apart = own - mean.to(own)
            squares = squares.to(own) + block.var(dim=0, correction=0).double() * size + apart**2 * count * size / total
            mean, count = mean.to(own) + apart * size / total, total
        return mean.float(), (squares / (count - 1)).sqrt().float().clamp_min(_LEAST_STD)


def _score(source: _Source, grid: Grid, settings: Linear, classes: int) -> Tensor:
    """Accuracy (G,) on a held-out part of the rows of every pair of the grid, trained on the others."""
    fitted, held = _stratified(source.features.labels.cpu(), settings)
    weight, bias = _train(source, fitted, grid, settings, classes)
    hits = torch.zeros(len(grid), dtype=torch.int64)
    most = max(1, min(_BLOCK, _LOGITS // (len(grid) * classes)))
    for values, labels in source.batches(held.split(most)):
        logits = torch.einsum("nd,gdc->gnc", values, weight) + bias[:, None]
        hits += (logits.argmax(dim=2) == labels).sum(dim=1).cpu()
    return hits.double() / len(held)


def _stratified(labels: Tensor, settings: Linear) -> tuple[Tensor, Tensor]:
    """Indices to fit on and indices held out: of every class the same share, at least one, and never the whole."""
    generator = torch.Generator().manual_seed(rng_key(settings.seed, 0, "", Draw.PROBE_HOLD_OUT))
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        count = min(max(1, round(settings.holdout * len(members))), len(members) - 1)
        held[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    if not held.any():  # one image a class: nothing can be spared, so the choice is made on what is fitted
        return torch.arange(len(labels)), torch.arange(len(labels))
    return (~held).nonzero()[:, 0], held.nonzero()[:, 0]


def _train(source: _Source, chosen: Tensor, grid: Grid, settings: Linear, classes: int) -> tuple[Tensor, Tensor]:
    """SGD with momentum and a cosine schedule from zero, for every pair of the grid at once: (G, D, C), (G, C)."""
    generator = torch.Generator().manual_seed(settings.seed)
    rates = torch.tensor([lr for lr, _ in grid], device=source.device).view(-1, 1, 1)
    decays = torch.tensor([decay for _, decay in grid], device=source.device).view(-1, 1, 1)
    weight = torch.zeros(len(grid), len(source.mean), classes, device=source.device)
    bias = torch.zeros(len(grid), 1, classes, device=source.device)
    velocities = [torch.zeros_like(weight), torch.zeros_like(bias)]
    steps = settings.epochs * math.ceil(len(chosen) / BATCH_SIZE)
    step = 0
    for _ in range(settings.epochs):
        order = chosen[torch.randperm(len(chosen), generator=generator)]
        for batch, labels in source.batches(order.split(BATCH_SIZE)):
            error = (batch @ weight + bias).softmax(dim=2)
            error[:, torch.arange(len(labels), device=labels.device), labels] -= 1
            error /= len(labels)
            gradients = [batch.t() @ error + decays * weight, error.sum(dim=1, keepdim=True)]
            rate = rates * 0.5 * (1 + math.cos(math.pi * step / steps))
            for parameter, velocity, gradient in zip((weight, bias), velocities, gradients, strict=True):
                velocity.mul_(MOMENTUM).add_(gradient)
                parameter.sub_(rate * velocity)
            step += 1
    return weight, bias[:, 0]


EVALUATORS: dict[str, Callable[[EvalContext], Evaluator]] = {"linear": linear}
