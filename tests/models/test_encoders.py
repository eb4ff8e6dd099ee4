"""Encoders: what they take and give, and what happens to a name that is none."""

import pytest
import torch

from bgsweep.config import Encoder
from bgsweep.errors import UserError
from bgsweep.models import build_encoder, to_unit


@pytest.mark.parametrize(
    ("config", "dim"),
    [
        (Encoder(name="resnet10", width=16, stem="small"), 128),
        (Encoder(name="resnet18"), 512),
        (Encoder(name="resnet18", width=32), 256),
        (Encoder(name="mobilenet_v3_small"), 1024),
    ],
)
def test_features_have_the_stated_size_at_any_image_size(config: Encoder, dim: int) -> None:
    encoder = build_encoder(config).eval()
    assert encoder.feature_dim == dim
    for height, width in ((32, 32), (48, 64)):
        assert encoder(torch.rand(2, 3, height, width)).shape == (2, dim)


def test_small_stem_keeps_the_resolution() -> None:
    small = build_encoder(Encoder(name="resnet18", stem="small")).backbone
    assert small.layer1(small.maxpool(small.relu(small.bn1(small.conv1(torch.rand(1, 3, 32, 32)))))).shape[-1] == 32


def test_to_unit_turns_pictures_into_channels_last_floats() -> None:
    pictures = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    unit = to_unit(pictures)
    assert unit.shape == (2, 3, 5, 7)
    assert unit.is_contiguous(memory_format=torch.channels_last)
    assert unit[1, 2, 3, 4].item() == pytest.approx(pictures[1, 3, 4, 2].item() / 255)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (Encoder(name="resnet51"), "resnet51"),
        (Encoder(name="vgg11", stem="small"), "stem"),
        (Encoder(name="resnet50", width=32), "width"),
    ],
)
def test_impossible_encoders_are_named(config: Encoder, told: str) -> None:
    with pytest.raises(UserError, match=told):
        build_encoder(config)
