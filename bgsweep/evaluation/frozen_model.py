"""The encoder under evaluation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bgsweep.evaluation.features import Encode

Head = Callable[[Tensor], Tensor]
"""From features (N, D) to logits (N, C), both float32 on the CPU; differentiable."""


def to_unit(images: Tensor, device: torch.device) -> Tensor:
    """uint8 images (N, H, W, 3) as `FrozenModel.network` takes them: floats (N, 3, H, W) in [0, 1], channels-last."""
    return images.to(device).permute(0, 3, 1, 2).float().div_(255)


@dataclass(frozen=True)
class FrozenModel:
    """An encoder under evaluation, in eval mode; no evaluator changes its weights.

    Attributes:
        encode: features of uint8 images.
        network: the same encoder, differentiable: images (N, 3, H, W) in [0, 1] to features, both on `device`.
        head: its own classifier of ImageNet's 1000 classes, if it came with one.
        origin: which network and weights it is, for the record.
    """

    encode: Encode
    network: nn.Module
    device: torch.device
    head: Head | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
