"""Copies from the host to the device for which the host does not wait."""

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A host's tensor on the device.

    From ordinary memory CUDA copies by way of a buffer of its own, and may wait for all earlier work to do so.
    """
    if device.type == "cuda" and tensor.device.type == "cpu" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
