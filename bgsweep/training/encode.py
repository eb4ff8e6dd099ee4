"""An encoder as the function that evaluators take."""

from collections.abc import Callable

import torch
from torch import Tensor

from bgsweep.models import ImageEncoder, to_unit


def encode_with(encoder: ImageEncoder, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A function from uint8 pictures (N, H, W, 3) to float32 features (N, D) on the CPU.

    It computes in float32 and puts the encoder into eval mode: BatchNorm is never updated by an evaluation.
    """

    @torch.inference_mode()
    def encode(images: Tensor) -> Tensor:
        encoder.eval()
        features: Tensor = encoder(to_unit(images.to(device)))
        return features.float().cpu()

    return encode
