"""The interface between the training loop and the methods, and functions that several methods use."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bgsweep.models import ImageEncoder, to_unit
from bgsweep.transfer import send


@dataclass(frozen=True)
class Views:
    """A worker's batch as a method gets it.

    Attributes:
        images: uint8 images (B, H, W, 3) for each view, the two large ones first.
        labels: classes (B,), -1 where there are none.
        epoch: counted from 0.
        swaps: BG_Swaps' negatives (S, H, W, 3), each on the background of the first view of one image; for methods
            whose configuration says `supports_swaps`.
        swapped: position in the batch (S,) of the image that each of `swaps` is a negative for. As a method gets it, it
            is on the device; before `parts`, it is on the host.
    """

    images: list[Tensor]
    labels: Tensor
    epoch: int = 0
    swaps: Tensor | None = None
    swapped: Tensor | None = None

    def parts(self, count: int) -> Iterator["Views"]:
        """The batch in `count` parts: images 0, count, 2 count, ..., then 1, count + 1, ...

        With this stride the n-th parts of several workers' batches are together the n-th part of one worker's whole
        batch, so that gradient accumulation gives the same result on any number of workers.
        """
        for part in range(count):
            mine = slice(part, None, count)
            swaps, swapped = self.swaps, self.swapped
            if swaps is not None and swapped is not None:
                if count > 1:  # chosen on the host: as many as there are decides shapes
                    here = (swapped % count == part).nonzero().squeeze(1)
                    swaps, swapped = swaps[send(here, swaps.device)], swapped[here] // count
                swapped = send(swapped, swaps.device)
            yield Views([images[mine] for images in self.images], self.labels[mine], self.epoch, swaps, swapped)


@dataclass(frozen=True)
class Step:
    """A scalar loss and scalar metrics, as tensors: reading one would make the host wait for the device."""

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Method(nn.Module, ABC):
    """A network that learns from views."""

    encoder: ImageEncoder
    """The part that is evaluated and kept; a method may choose a moving average of what it trains, as DINO does."""

    @abstractmethod
    def forward(self, views: Views) -> Step:
        """The loss of one batch."""

    def after_backward(self, step: int) -> None:
        """Change gradients before the optimiser step; ``step`` counts from 0."""

    def after_step(self, progress: float) -> None:
        """Update moving averages and queues after the optimiser step.

        ``progress`` is the share of the run's steps before this one, in [0, 1).
        """


def own_similarities(queries: Tensor, negatives: Tensor, owners: Tensor) -> Tensor:
    """BG_Swaps' column of logits: each query's similarity to its own negative, before the temperature.

    Args:
        queries: (N, D) of a batch.
        negatives: (S, D), the embeddings of `Views.swaps`.
        owners: (S,), `Views.swapped`.

    Returns:
        (N, 1), -inf where a query has no negative of its own.
    """
    column = queries.new_full((len(queries), 1), -torch.inf)
    column[owners, 0] = (queries[owners] * negatives).sum(dim=1)
    return column


def encode_crops(encoder: ImageEncoder, images: list[Tensor]) -> Tensor:
    """Features (V * B, D) of V crops of uint8 images (B, H, W, 3), in one pass of the encoder for each crop size."""
    sizes = [list(crops) for _, crops in groupby(images, key=lambda crop: crop.shape[1:3])]
    return torch.cat([encoder(to_unit(torch.cat(crops))) for crops in sizes])


def swapped_loss(scores: Tensor, codes: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of predicting a crop's codes from all other crops (SwAV, eq. 1 and 2; DINO, eq. 3).

    ``scores`` of V crops with the prototypes are (V, B, K), ``codes`` of the first of these crops (A, B, K); only
    ``scores`` get a gradient. Scores that are all the same give ln K.
    """
    predictions = F.log_softmax(scores / temperature, dim=2)
    others = predictions.sum(dim=0) - predictions[: len(codes)]
    return -(codes * others).sum(dim=2).mean() / (len(scores) - 1)


def prototype_entropy(logits: Tensor) -> Tensor:
    """Entropy of the mean prediction over all samples, as a share of ln K: near 0 where few prototypes are used."""
    mean = logits.softmax(dim=-1).flatten(0, -2).mean(dim=0)
    entropy: Tensor = torch.special.entr(mean).sum()
    return entropy / math.log(len(mean))


def target_momentum(start: float, progress: float) -> float:
    """Momentum of a target's moving average: half a cosine from ``start`` at progress 0 to 1 at 1 (BYOL, sec. 3.2)."""
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2


@torch.no_grad()
def ema_update(target: nn.Module, online: nn.Module, momentum: float) -> None:
    """target <- momentum * target + (1 - momentum) * online, over parameters; buffers keep their own statistics."""
    # One pass over memory: 1.4 times as fast as mul and add on a CPU, and a few kernels instead of 161 on a GPU.
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), 1 - momentum)


def embedding_std(embeddings: Tensor) -> Tensor:
    """Standard deviation of L2-normalised embeddings (N, D) over the batch, times sqrt(D): 0 collapsed, 1 spread."""
    return embeddings.detach().std(dim=0).mean() * math.sqrt(embeddings.shape[1])
