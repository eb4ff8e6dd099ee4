"""Encoders: what they take and give, and what happens to a name that is none."""

import sys

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from bgsweep.config import Encoder
from bgsweep.errors import UserError
from bgsweep.models import build_encoder, to_unit


@pytest.mark.parametrize(
    ("config", "dim"),
    [
        (Encoder(name="resnet10", width=16, stem="small"), 128),
        (Encoder(name="resnet18"), 512),
        (Encoder(name="resnet18", width=32), 256),
        (Encoder(name="resnet34"), 512),
        (Encoder(name="resnet50"), 2048),
        (Encoder(name="wide_resnet50_2"), 2048),
        (Encoder(name="mobilenet_v3_small"), 1024),
        (Encoder(name="vit_s_16"), 384),
        (Encoder(name="googlenet"), 1024),
    ],
)
def test_features_have_the_stated_size_at_any_image_size(config: Encoder, dim: int) -> None:
    encoder = build_encoder(config).eval()
    assert encoder.feature_dim == dim
    for height, width in ((32, 32), (48, 64)):
        assert encoder(torch.rand(2, 3, height, width)).shape == (2, dim)


@pytest.mark.parametrize("name", ["resnet18", "timm:vgg11"])
def test_stochastic_depth_is_refused_where_a_network_has_none(name: str) -> None:
    with pytest.raises(UserError, match=f"encoder.drop_path: {name} .* set it to 0"):
        build_encoder(Encoder(name=name, drop_path=0.1))


def test_small_stem_keeps_the_resolution() -> None:
    small = build_encoder(Encoder(name="resnet18", stem="small")).backbone
    assert small.layer1(small.maxpool(small.relu(small.bn1(small.conv1(torch.rand(1, 3, 32, 32)))))).shape[-1] == 32


@pytest.mark.parametrize("width", [3, 4, 8])
def test_very_narrow_networks_have_right_gradients(width: int) -> None:
    """Against the same network in double precision, which no vectorised kernel computes.

    Where a processor has AVX2 and no AMX, strided 1 x 1 convolutions of few channels crashed one thread. A smooth
    function stands in for ReLU, which rounding would turn on or off at 0.
    """
    torch.manual_seed(0)
    config, threads = Encoder(name="resnet10", width=width, stem="small"), torch.get_num_threads()
    network = build_encoder(config).to(memory_format=torch.channels_last)
    exact = build_encoder(config).double()
    exact.load_state_dict(network.state_dict())
    for module in (*network.modules(), *exact.modules()):
        if hasattr(module, "relu"):
            module.relu = nn.SiLU()
    images = torch.rand(32, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    torch.set_num_threads(1)
    try:
        for encoder, pictures in ((network, images), (exact, images.double())):
            encoder(pictures).square().mean().backward()
    finally:
        torch.set_num_threads(threads)
    for (name, ours), theirs in zip(network.named_parameters(), exact.parameters(), strict=True):
        if "downsample" in name:
            torch.testing.assert_close(ours.grad, theirs.grad.float(), rtol=1e-3, atol=1e-5)


def test_to_unit_turns_images_into_channels_last_floats() -> None:
    pictures = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    unit = to_unit(pictures)
    assert unit.shape == (2, 3, 5, 7)
    assert unit.is_contiguous(memory_format=torch.channels_last)
    assert unit[1, 2, 3, 4].item() == pytest.approx(pictures[1, 3, 4, 2].item() / 255)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (Encoder(name="resnet51"), "resnet51"),
        (Encoder(name="mobilenet_v3_small", stem="small"), "stem"),
        (Encoder(name="resnet50", width=32), "width"),
        (Encoder(name="squeezenet1_1"), "no linear classifier"),
        (Encoder(name="maxvit_t"), "maxvit_t cannot take views of 32 px"),
        (Encoder(name="vit_h_14"), "vit_h_14 cannot take views of 32 px"),
    ],
)
def test_impossible_encoders_are_named(config: Encoder, told: str) -> None:
    with pytest.raises(UserError, match=told) as refused:
        build_encoder(config, [32])
    assert "\n" not in str(refused.value)


def test_every_size_of_the_views_is_tried() -> None:
    with pytest.raises(UserError, match="alexnet cannot take views of 32 px"):
        build_encoder(Encoder(name="alexnet"), [64, 32])


def test_vision_transformer_is_torchvisions_at_its_own_size() -> None:
    torch.manual_seed(0)
    ours = build_encoder(Encoder(name="vit_s_16"), [64]).backbone
    theirs = VisionTransformer(64, 16, 12, 6, 384, 1536)
    theirs.heads.head = nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(2, 3, 64, 64)
    for training in (True, False):
        expected = theirs.train(training)(images)
        assert torch.equal(ours.train(training)(images), expected)
    assert sum(p.numel() for p in ours.parameters()) == pytest.approx(21.4e6, rel=0.02)


def test_vision_transformer_interpolates_positions_to_other_sizes() -> None:
    vit = build_encoder(Encoder(name="vit_s_16"), [64, 32]).backbone
    with torch.no_grad():
        # A ramp over the rows stays a ramp over twice as many, away from the borders.
        vit.encoder.pos_embedding[:, 1:] = torch.arange(4.0).repeat_interleave(4).view(1, 16, 1)
        found = vit._positions(8, 4)[0, 1:, 0].view(8, 4)
    torch.testing.assert_close(found[2:6, 0], torch.arange(4) * 0.5 + 0.75, rtol=0.1, atol=0.05)
    assert torch.equal(vit._positions(8, 4)[:, :1], vit.encoder.pos_embedding[:, :1])
    vit(torch.rand(2, 3, 32, 48))[:, 0].sum().backward()
    assert vit.encoder.pos_embedding.grad.any()


def test_one_exported_vision_transformer_takes_all_sizes() -> None:
    encoder = build_encoder(Encoder(name="vit_s_16"), [48]).eval()
    free = torch.export.Dim.DYNAMIC
    program = torch.export.export(encoder, (torch.rand(2, 3, 48, 48),), dynamic_shapes=({0: free, 2: free, 3: free},))
    for shape in ((2, 48, 48), (5, 64, 32)):
        images = torch.rand(shape[0], 3, *shape[1:])
        torch.testing.assert_close(program.module()(images), encoder(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "dim"),
    [("timm:vit_tiny_patch16_224", 192), ("mobilenetv3_small_050", 1024), ("timm:swin_tiny_patch4_window7_224", 768)],
)
def test_models_of_timm_by_name_at_the_sizes_of_the_views(name: str, dim: int) -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    encoder = build_encoder(Encoder(name=name), [64, 32]).eval()
    assert encoder.feature_dim == dim
    for size in (64, 32):
        assert encoder(torch.rand(2, 3, size, size)).shape == (2, dim)


def test_without_timm_the_cure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match="pip install 'timm"):
        build_encoder(Encoder(name="timm:resnet18"))


def test_torchvisions_own_names_come_before_timms() -> None:
    assert type(build_encoder(Encoder(name="resnet18"), [32]).backbone).__module__.startswith("torchvision.")
