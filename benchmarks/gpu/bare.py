"""Each method's algorithm as a plain PyTorch loop: no metrics, no schedule, no checks, nothing of bgsweep's trainer."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Loss = Callable[[Any, list[Tensor], Tensor], Tensor]
LARGE = 2


def moco_v2(method: Any, views: list[Tensor], labels: Tensor) -> Tensor:
    query = F.normalize(method.projector(method.encoder(views[0])).float(), dim=1)
    with torch.no_grad():
        key = F.normalize(method.key_network(views[1]).float(), dim=1)
    with torch.autocast(query.device.type, enabled=False):
        logits = torch.cat([(query * key).sum(1, keepdim=True), query @ method.queue.clone().t()], dim=1)
        loss = F.cross_entropy(logits / method.config.temperature, torch.zeros_like(labels))
    method.queue[: len(key)] = key
    return loss


def byol(method: Any, views: list[Tensor], labels: Tensor) -> Tensor:
    predictions = [method.predictor(method.projector(method.encoder(view))) for view in views]
    with torch.no_grad():
        targets = [method.target_network(view).float() for view in views]
    pairs = zip(predictions, reversed(targets), strict=True)
    losses = [2 - 2 * F.cosine_similarity(one.float(), other).mean() for one, other in pairs]
    return losses[0] + losses[1]


def swav(method: Any, views: list[Tensor], labels: Tensor) -> Tensor:
    with torch.no_grad():
        method.prototypes.weight.copy_(F.normalize(method.prototypes.weight, dim=1))
    sizes = [list(crops) for _, crops in groupby(views, key=lambda view: view.shape[2])]
    features = torch.cat([method.encoder(torch.cat(crops)) for crops in sizes])
    embeddings = F.normalize(method.projector(features).float(), dim=1)
    with torch.autocast(embeddings.device.type, enabled=False):
        scores = method.prototypes(embeddings).chunk(len(views))
        logs = [F.log_softmax(score / method.config.temperature, dim=1) for score in scores]
        loss = embeddings.new_zeros(())
        for large in range(LARGE):
            codes = _codes(scores[large].detach())
            others = sum(log for number, log in enumerate(logs) if number != large)
            loss = loss - (codes * others).sum(1).mean() / (len(views) - 1)
    return loss / LARGE


def supervised(method: Any, views: list[Tensor], labels: Tensor) -> Tensor:
    logits = method.classifier(method.encoder(torch.cat(views))).float()
    return F.cross_entropy(logits, labels.repeat(2), label_smoothing=method.config.label_smoothing)


def _codes(scores: Tensor) -> Tensor:
    codes = (scores / 0.05).exp().t()
    for _ in range(3):
        codes /= codes.sum(1, keepdim=True)
        codes /= codes.sum(0, keepdim=True)
    return codes.t()


LOSSES: dict[str, Loss] = {"moco_v2": moco_v2, "byol": byol, "swav": swav, "supervised": supervised}


def bare_step(
    name: str, method: Any, views: Sequence[Tensor], labels: Tensor, autocast: torch.dtype | None, adamw: bool = False
) -> Callable[[], None]:
    """A step on a method's networks, which it changes; ``views`` are uint8 (N, H, W, 3)."""
    learning = [parameter for parameter in method.parameters() if parameter.requires_grad]
    device = learning[0].device
    optimizer: torch.optim.Optimizer = (
        torch.optim.AdamW(learning, 1e-3, weight_decay=1e-4, fused=True)
        if adamw
        else torch.optim.SGD(learning, 0.03, 0.9, weight_decay=1e-4, fused=True)
    )
    slow: nn.Module | None = getattr(method, "key_network", getattr(method, "target_network", None))
    quick = getattr(method, "query_network", getattr(method, "online_network", None))

    def step() -> None:
        images = [view.to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 255 for view in views]
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            loss = LOSSES[name](method, images, labels.to(device, non_blocking=True))
        loss.backward()
        optimizer.step()
        if slow is not None and quick is not None:
            with torch.no_grad():
                torch._foreach_lerp_(list(slow.parameters()), list(quick.parameters()), 0.001)

    return step
