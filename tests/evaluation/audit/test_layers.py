"""Measures that look into a network: attribution, and the read-out of patches."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from bgsweep.data import Splits
from bgsweep.evaluation.audit import attribution, foreground_map
from bgsweep.evaluation.audit.layers import grid_of, last_layers, watched
from bgsweep.evaluation.audit.measure import NotApplicable
from bgsweep.models.vit import AnySizeVisionTransformer
from tests.evaluation.audit.conftest import ENCODERS, Pooled, Sees, subject


def test_attribution_is_where_the_encoder_looks(constructed: Splits) -> None:
    for encoder, value in {"background": 0, "centre": 1}.items():
        focus, inside = attribution.attribution(subject(Pooled(ENCODERS[encoder]), constructed)).values
        assert inside.counted.any() and inside.value == pytest.approx(value, abs=0.05)
        area = (13 / 32) ** 2  # without the rim
        assert focus.value == pytest.approx(value / area, rel=0.05, abs=0.1)


def test_focus_is_one_where_all_places_matter_alike() -> None:
    masks = np.zeros((2, 8, 8))
    masks[:, :3] = 1
    inside, focus = attribution.inside(np.ones((2, 8, 8)), masks)
    assert inside.value == pytest.approx(3 / 8) and focus.value == pytest.approx(1)
    nothing = attribution.inside(np.zeros((2, 8, 8)), masks)[0]
    assert not nothing.counted.any()


def test_grad_cam_is_its_sum_written_out() -> None:
    values, gradients = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    for image in range(2):
        slow = torch.zeros(4, 4)
        for channel in range(3):
            slow += gradients[image, channel].mean() * values[image, channel]
        assert torch.allclose(attribution.grad_cam(values, gradients)[image], slow.clamp_min(0), atol=1e-6)


@pytest.mark.parametrize("network", ["resnet18", "vit_s_16"])
def test_the_last_layers_of_networks(network: str) -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 3, 64, 64)
    encoder = models.resnet18() if network == "resnet18" else AnySizeVisionTransformer(network, 64)
    encoder.fc = encoder.heads = nn.Identity()  # torchvision's ViT begins with a classifier of zeros
    encoder.eval().requires_grad_(False)
    last, cam = last_layers(encoder, image)
    side, width = (2, 512) if network == "resnet18" else (4, 384)
    for layer in (last, cam):
        assert layer.grid(watched(encoder, layer, image)[1]).shape == (1, width, side, side)
    if network == "resnet18":
        assert last.module is cam.module is encoder.layer4
    else:  # patches after the last block do not reach the class token
        assert last.module is encoder.encoder.ln
        assert cam.module is encoder.encoder.layers[-1].ln_1


def test_a_network_without_places_is_told() -> None:
    with pytest.raises(NotApplicable):
        last_layers(Sees(ENCODERS["centre"]), torch.rand(1, 3, 32, 32))
    assert grid_of(torch.zeros(1, 12, 50, 50), 64) is None  # attention of 50 tokens


def test_patches_that_know_the_foreground_are_read_out(constructed: Splits) -> None:
    knows = subject(Pooled(lambda images: torch.ones_like(images[:, :1])), constructed)
    iou, position = foreground_map.foreground_map(knows).values
    assert iou.value > 0.95 and position.value > 0.95  # all foregrounds are in the same place
    for weight, least, most in (
        (ENCODERS["foreground"], 0.95, 1.0),
        (ENCODERS["background"], 0.3, 0.5),  # all that is not rim: the foreground and as much again
        (ENCODERS["centre"], 0.2, 0.3),  # its four patches of sixteen
        (lambda images: torch.zeros_like(images[:, :1]), 0.0, 0.3),
    ):
        found = foreground_map.foreground_map(subject(Pooled(weight), constructed)).values[0].value
        assert least <= found <= most


def test_a_read_out_finds_a_direction_among_many() -> None:
    torch.manual_seed(0)
    features, direction = torch.randn(60, 40, 20), torch.randn(20)
    foreground = np.asarray(features @ direction > 3)
    found = foreground_map.read_out(features[:30], foreground[:30], features[30:])
    assert foreground_map.overlap(found, foreground[30:], "iou").value > 0.8
    noise = torch.randn(60, 40, 200)  # more features than patches tell anything of: all as foreground is the best guess
    chance = foreground_map.overlap(np.ones_like(foreground[30:]), foreground[30:], "iou").value
    blind = foreground_map.read_out(noise[:30], foreground[:30], noise[30:])
    assert foreground_map.overlap(blind, foreground[30:], "iou").value == pytest.approx(chance, abs=0.08)
