"""The embedded images as evaluations see them, with and without a shortcut."""

import pytest
import torch
from torch import Tensor

from bgsweep.config import Data, Shortcut
from bgsweep.data import Splits, open_splits


@pytest.fixture(scope="session")
def splits() -> Splits:
    return open_splits(Data(images="sample", resize=40, cache=True))


@pytest.fixture(scope="session")
def shortcut() -> Splits:
    return open_splits(Data(images="sample", resize=40, cache=True, shortcut=Shortcut(rho=0.95)))


def colours(images: Tensor) -> Tensor:
    """An 'encoder' that sees nothing but the mean colours of a 4 x 4 grid: (N, 48)."""
    pooled = torch.nn.functional.adaptive_avg_pool2d(images.permute(0, 3, 1, 2).float(), 4)
    return pooled.flatten(1) / 255
