"""Linear probe: softmax regression on frozen features, many learning rates and decays trained at once.

Features are computed once, so that the whole grid costs less than one pass of the encoder over the images.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bgsweep.config import Linear
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.evaluator import Evaluator, Yields, tops
from bgsweep.evaluation.features import Features
from bgsweep.seeding import Draw, rng_key

BATCH_SIZE = 256
MOMENTUM = 0.9


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
    """`linear_top1` and `linear_top5`, the probe's rate and decay chosen on a part held out of train."""
    context.check_images()

    def measure() -> Yields:
        logits = linear_head(context).logits(context.test.values)
        yield from context.by_image(tops("linear", logits, context.test.labels))

    return Evaluator(measure, lambda: context.protocol() | linear_protocol(linear_head(context), context))


def linear_head(context: EvalContext) -> LinearHead:
    """The linear probe on the user's training images, trained once for all evaluators."""

    def fit() -> LinearHead:
        return fit_linear(context.features.train(), context.config.evaluate.linear, context.features.classes)

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


def fit_linear(train: Features, settings: Linear, classes: int) -> LinearHead:
    """Train all pairs of rate and decay on a part of the features, choose by the rest, train the chosen on all of them.

    Features are standardised by the training features' mean and standard deviation. Of equally good pairs the one of
    the lower rate, then the lower decay, is chosen.
    """
    mean, std = train.values.mean(dim=0), train.values.std(dim=0).clamp_min(1e-6)
    values = (train.values - mean) / std
    fitted, held = _stratified(train.labels, settings)
    grid = sorted(product(settings.lrs, settings.weight_decays))
    weight, bias = _train(values[fitted], train.labels[fitted], grid, settings, classes)
    logits = torch.einsum("nd,gdc->gnc", values[held], weight) + bias[:, None]
    scores = (logits.argmax(dim=2) == train.labels[held]).float().mean(dim=1)
    best = int(scores.argmax())
    lr, weight_decay = grid[best]
    weight, bias = _train(values, train.labels, [(lr, weight_decay)], settings, classes)
    return LinearHead(mean, std, weight[0], bias[0], lr, weight_decay, scores[best].item())


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


def _train(
    values: Tensor, labels: Tensor, grid: list[tuple[float, float]], settings: Linear, classes: int
) -> tuple[Tensor, Tensor]:
    """SGD with momentum and a cosine schedule from zero, for every pair of the grid at once: (G, D, C), (G, C)."""
    generator = torch.Generator().manual_seed(settings.seed)
    rates = torch.tensor([lr for lr, _ in grid]).view(-1, 1, 1)
    decays = torch.tensor([decay for _, decay in grid]).view(-1, 1, 1)
    weight = torch.zeros(len(grid), values.shape[1], classes)
    bias = torch.zeros(len(grid), 1, classes)
    velocities = [torch.zeros_like(weight), torch.zeros_like(bias)]
    targets = F.one_hot(labels, classes).float()
    steps = settings.epochs * math.ceil(len(values) / BATCH_SIZE)
    step = 0
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(values), generator=generator).split(BATCH_SIZE):
            batch = values[rows]
            error = ((batch @ weight + bias).softmax(dim=2) - targets[rows]) / len(rows)
            gradients = [batch.t() @ error + decays * weight, error.sum(dim=1, keepdim=True)]
            rate = rates * 0.5 * (1 + math.cos(math.pi * step / steps))
            for parameter, velocity, gradient in zip((weight, bias), velocities, gradients, strict=True):
                velocity.mul_(MOMENTUM).add_(gradient)
                parameter.sub_(rate * velocity)
            step += 1
    return weight, bias[:, 0]


EVALUATORS: dict[str, Callable[[EvalContext], Evaluator]] = {"linear": linear}
