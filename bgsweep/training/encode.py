"""An encoder as evaluators take it."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from bgsweep.evaluation.frozen_model import FrozenModel, Head
from bgsweep.models import ImageEncoder, to_unit
from bgsweep.training.device import arithmetic

IN_CACHE = 8 * 224 * 224
"""Pixels that a CPU encodes at once fastest: the maps of more do not fit into its caches (benchmarks/RESULTS.md)."""


def encode_with(
    encoder: ImageEncoder, device: torch.device, autocast: torch.dtype | None = None, at_once: int | None = None
) -> Callable[[Tensor], Tensor]:
    """A function from uint8 images (N, H, W, 3) to float32 features (N, D) on the CPU.

    It computes in `autocast` (None: float32), and sets the encoder to eval mode, so that an evaluation never updates
    BatchNorm.

    Args:
        at_once: largest number of pixels that go through the encoder together; None: all. Features differ by rounding.
    """

    @torch.inference_mode()
    def encode(images: Tensor) -> Tensor:
        encoder.eval()
        # Float32 means float32: convolutions in TF32, torch's default, differ from a CPU's in the third digit.
        reduced = autocast is not None
        with arithmetic(device, tf32=reduced), torch.autocast(device.type, dtype=autocast, enabled=reduced):
            step = len(images) if at_once is None else max(1, at_once // (images.shape[1] * images.shape[2]))
            features = [encoder(to_unit(part.to(device))).float().cpu() for part in images.split(max(1, step))]
        return features[0] if len(features) == 1 else torch.cat(features)

    return encode


def frozen_model(
    encoder: ImageEncoder,
    device: torch.device,
    head: Head | None = None,
    origin: Mapping[str, Any] | None = None,
    autocast: torch.dtype | None = None,
    at_once: int | None = None,
) -> FrozenModel:
    """An encoder, which is on the device already, for evaluation; see `encode_with`."""
    return FrozenModel(encode_with(encoder, device, autocast, at_once), encoder, device, head, origin or {})
