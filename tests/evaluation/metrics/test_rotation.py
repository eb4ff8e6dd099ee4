"""The rotation probe: what features tell of the rotation, and images that no probe has seen."""

import numpy as np
import pytest
import torch
from torch import Tensor

from bgsweep.config.evaluation import Linear
from bgsweep.config.metrics import RotationMetric
from bgsweep.data import Splits
from bgsweep.evaluation.metrics.rotation import Rotation, rotation_hits
from tests.evaluation.metrics.clouds import cloud
from tests.evaluation.metrics.contexts import context

PROBE = Linear(epochs=8, lrs=(0.1,), weight_decays=(1e-3,))


def test_limits() -> None:
    told = np.tile(np.eye(4), (40, 1, 1)) + 0.05 * cloud(40, 4, 4)
    assert rotation_hits(told, PROBE).tolist() == [1.0] * 40
    nothing = np.repeat(cloud(60, 1, 6), 4, axis=1)
    assert rotation_hits(nothing, PROBE).tolist() == [0.25] * 60, "the same four predictions for each image"


def test_the_probe_is_asked_about_images_that_it_has_not_seen() -> None:
    # So many dimensions of noise that a probe knows every row that it was fitted to.
    assert rotation_hits(cloud(60, 4, 300), PROBE).mean() == pytest.approx(0.25, abs=0.12)


def test_an_encoder_that_sees_where_it_is_brighter_knows_the_rotation_of_real_images(splits: Splits) -> None:
    def halves(images: Tensor) -> Tensor:
        grey = images.float().mean(dim=3)
        rows, columns = grey.mean(dim=2), grey.mean(dim=1)
        return torch.cat([rows, columns], dim=1) / 255

    settings = RotationMetric(name="rotation", images=60, epochs=8)
    (seeing,) = Rotation(settings, context(splits, halves)).measure()
    (blind,) = Rotation(settings, context(splits, lambda images: images.float().mean(dim=(1, 2)))).measure()
    assert seeing.value > 0.3 + blind.value - 0.25 and seeing.error is not None and 0 < seeing.error < 0.08
    assert blind.value == pytest.approx(0.25, abs=0.02)
