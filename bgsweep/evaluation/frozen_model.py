"""Who is judged, and what comes of it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bgsweep.evaluation.features import Encode

Head = Callable[[Tensor], Tensor]
"""From features (N, D) to logits (N, C), both float32 on the CPU; differentiable."""


def to_unit(images: Tensor, device: torch.device) -> Tensor:
    """uint8 pictures (N, H, W, 3) as `FrozenModel.network` takes them: floats (N, 3, H, W) in [0, 1], channels-last."""
    return images.to(device).permute(0, 3, 1, 2).float().div_(255)


@dataclass(frozen=True)
class FrozenModel:
    """An encoder under evaluation, in eval mode, its weights frozen.

    Attributes:
        encode: features of uint8 pictures.
        network: the same encoder, differentiable: pictures (N, 3, H, W) in [0, 1] to features, both on `device`.
        head: its own classifier of ImageNet's 1000 classes, if it came with one.
        origin: which network and weights it is, for the record.
    """

    encode: Encode
    network: nn.Module
    device: torch.device
    head: Head | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PerImageMetric:
    """A named value with the photographs that it is made of: the sum of `hits` over the sum of `counted`.

    For an accuracy the hits are 1 where the prediction is right, and all count 1; a photograph that is seen in several
    pictures has one entry for all of them. Two encoders' values of the same name are of the same photographs in the
    same order, so that they can be compared one by one.
    """

    name: str
    hits: npt.NDArray[np.float64]
    counted: npt.NDArray[np.float64]

    @property
    def value(self) -> float:
        """NaN where nothing counts."""
        total = float(self.counted.sum())
        return float(self.hits.sum()) / total if total else float("nan")

    def minus(self, other: "PerImageMetric", name: str) -> "PerImageMetric":
        """The difference of two accuracies over the same photographs."""
        return PerImageMetric(name, self.hits - other.hits, self.counted)


Yields = Iterator[PerImageMetric]


def share(name: str, hits: Tensor | npt.NDArray[Any]) -> PerImageMetric:
    """A measured share of pictures, from a truth value for each."""
    values = np.asarray(hits, np.float64)
    return PerImageMetric(name, values, np.ones(len(values)))


def tops(name: str, logits: Tensor, labels: Tensor) -> Yields:
    """`NAME_top1` and, where there are more than five classes, `NAME_top5`."""
    yield share(f"{name}_top1", logits.argmax(dim=1) == labels)
    if logits.shape[1] > 5:
        yield share(f"{name}_top5", (logits.topk(5, dim=1).indices == labels[:, None]).any(dim=1))
