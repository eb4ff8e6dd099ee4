"""Features of image sets: computed once, used by every evaluator of a call."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bgsweep.data import Image

Encode = Callable[[Tensor], Tensor]
"""From uint8 images (N, H, W, 3) to float32 features (N, D) on the CPU; it puts the encoder into eval mode."""

Pictures = Iterable[tuple[Image, npt.NDArray[np.int64]]]
"""Batches of images (N, H, W, 3) with their labels (N,)."""


@dataclass(frozen=True)
class Features:
    """Features (N, D), float32, of images with labels (N,), int64."""

    values: Tensor
    labels: Tensor


def extract(encode: Encode, pictures: Pictures) -> Features:
    """Encode an image set batch by batch."""
    values, labels = [], []
    for images, classes in pictures:
        values.append(encode(torch.from_numpy(images)))
        labels.append(torch.from_numpy(classes))
    return Features(torch.cat(values), torch.cat(labels))


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Share of right predictions, 0 to 1."""
    return (predicted == labels).double().mean().item()
