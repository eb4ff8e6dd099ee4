"""Constructed images and encoders, of which every measure's value is known.

The foreground of class c is a square in the middle whose red and green code c and whose blue is full; the background's
red and green code c + 1, and its blue is none. So who takes background for foreground is always wrong.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bgsweep.config import Evaluate, Linear, SuiteConfig
from bgsweep.data import Image, Sample, Splits
from bgsweep.evaluation.audit.subject import Subject
from bgsweep.evaluation.frozen_model import FrozenModel
from bgsweep.training.encode import encode_with

CLASSES, SIZE, _SIDE = 4, 32, 48


def _colour(code: int, jitter: np.random.Generator) -> tuple[float, float]:
    pair = 0.1 + 0.35 * (code % CLASSES & 1), 0.1 + 0.35 * (code % CLASSES >> 1)
    red, green = (each + jitter.uniform(-0.06, 0.06) for each in pair)
    return red, green


class Constructed:
    """An `ImageDataset` of such images."""

    has_masks = True

    def __init__(self, name: str, each: int, seed: int) -> None:
        self.name, self.classes = name, [f"class {number}" for number in range(CLASSES)]
        self.labels = np.repeat(np.arange(CLASSES), each)
        self.ids = [f"{name}/{number}.png" for number in range(len(self.labels))]
        draws = np.random.default_rng(seed)
        self._images = [self._image(int(label), draws) for label in self.labels]

    def _image(self, label: int, draws: np.random.Generator) -> Image:
        image = np.zeros((_SIDE, _SIDE, 3))
        image[..., :2] = _colour(label + 1, draws)
        image[14:34, 14:34] = (*_colour(label, draws), 1.0)
        return np.asarray((image * 255).round(), np.uint8)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        mask = np.zeros((_SIDE, _SIDE), np.uint8)
        mask[14:34, 14:34] = 255
        return Sample(self.ids[index], self._images[index], int(self.labels[index]), mask.copy)

    def digests(self) -> dict[str, str]:
        return {"images": self.name, "masks": self.name}


class Sees(nn.Module):
    """The mean colour (red, green) where a weight of each pixel says, and a constant."""

    def __init__(self, weight: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, images: Tensor) -> Tensor:
        weight = self.weight(images).expand(len(images), 1, *images.shape[2:])
        seen = (images[:, :2] * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3)).clamp_min(1e-6)
        return torch.cat([seen - 0.275, torch.full((len(seen), 1), 0.1)], dim=1)


class Pooled(nn.Module):
    """Colours of cells of 4 x 4 pixels, zero where a weight is, and their mean."""

    def __init__(self, weight: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.cells = weight, nn.AvgPool2d(4)

    def forward(self, images: Tensor) -> Tensor:
        cells: Tensor = self.cells(images * self.weight(images))
        return cells.mean(dim=(2, 3))


def _frame(images: Tensor) -> Tensor:
    weight = torch.ones(1, 1, *images.shape[2:])
    weight[..., 3:-3, 3:-3] = 0
    return weight


def _block(images: Tensor) -> Tensor:
    weight = torch.zeros(1, 1, *images.shape[2:])
    weight[..., 13:19, 13:19] = 1
    return weight


ENCODERS: dict[str, Callable[[Tensor], Tensor]] = {
    "background": _frame,
    "centre": _block,
    "foreground": lambda images: (images[:, 2:] - 0.5).clamp_min(0),  # wherever it is, by its blue
    "texture": lambda images: torch.ones_like(images[:, :1]),  # all places alike: colours, without shape or place
}


def encode(network: nn.Module) -> FrozenModel:
    """A network as measures take it."""
    device = torch.device("cpu")
    return FrozenModel(encode_with(network, device), network.eval(), device)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def constructed() -> Splits:
    test = Constructed("test", 6, 1)
    return Splits(Constructed("train", 6, 0), test, test)


@pytest.fixture(scope="session")
def subjects(constructed: Splits) -> dict[str, Subject]:
    """Encoders that see the background, the centre, the foreground wherever it is, or texture wherever it is, alone."""
    return {name: subject(Sees(weight), constructed) for name, weight in ENCODERS.items()}


def subject(network: nn.Module, splits: Splits, labelled: bool = True, folder: Path | None = None) -> Subject:
    """A network with the constructed images."""
    linear = Linear(epochs=60, lrs=(0.3,), weight_decays=(0.0,))
    config = SuiteConfig(evaluate=Evaluate(linear=linear), size=SIZE)
    return Subject(encode(network), config, splits, labelled, part=16, folder=folder, threads=0)
