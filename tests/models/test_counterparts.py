"""Encoders under the names of torchvision and timm, and the features that those libraries compute with them."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from bgsweep.config import Encoder
from bgsweep.errors import UserError
from bgsweep.models import ImageEncoder, build_encoder
from bgsweep.models.counterparts import in_timm, in_torchvision
from bgsweep.models.vit import SHAPES

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def trained(config: Encoder, size: int) -> ImageEncoder:
    """An encoder with weights and BatchNorm statistics that differ from those of a new one."""
    torch.manual_seed(0)
    encoder = build_encoder(config, [size])
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
        elif isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return encoder.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def resnet() -> ImageEncoder:
    return trained(Encoder(name="resnet50"), 64)


def same(network: nn.Module, encoder: ImageEncoder, size: int) -> None:
    images = torch.rand(2, 3, size, size)
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()((images - MEAN) / STD), encoder(images), rtol=0, atol=1e-4)


def test_a_resnet_in_torchvision(resnet: ImageEncoder) -> None:
    found = in_torchvision(resnet, Encoder(name="resnet50"), 64)
    network = torchvision.models.resnet50()
    missing = network.load_state_dict(found.state, strict=False)
    assert (missing.missing_keys, missing.unexpected_keys) == (["fc.weight", "fc.bias"], [])
    network.fc = nn.Identity()
    same(network, resnet, 64)
    same(network, resnet, 96)
    assert (found.name, found.call, found.classifier) == ("resnet50", "torchvision.models.resnet50()", "fc")


def test_a_resnet_in_timm_and_back(resnet: ImageEncoder) -> None:
    found = in_timm(resnet, Encoder(name="resnet50"), 64)
    network = timm.create_model("resnet50", num_classes=0)
    network.load_state_dict(found.state)
    same(network, resnet, 64)
    theirs = ImageEncoder(network.eval(), 2048)
    assert in_torchvision(theirs, Encoder(name="timm:resnet50"), 64).call == "torchvision.models.resnet50()"


@pytest.mark.parametrize("size", [32, 224])
def test_a_vit_in_timm(size: int) -> None:
    encoder = trained(Encoder(name="vit_s_16", drop_path=0.1), size)
    found = in_timm(encoder, Encoder(name="vit_s_16"), size)
    arguments = {} if size == 224 else {"img_size": size}
    network = timm.create_model("vit_small_patch16_224", num_classes=0, **arguments)
    network.load_state_dict(found.state)
    same(network, encoder, size)


def test_vits_in_torchvision() -> None:
    for name in ("vit_s_16", "vit_b_32"):
        config = Encoder(name=name)
        encoder = trained(config, 32)
        found = in_torchvision(encoder, config, 32)
        network = eval(found.call, {"torchvision": torchvision})  # the line of the model card
        network.heads = nn.Identity()
        network.load_state_dict(found.state)
        same(network, encoder, 32)
        assert (found.name, found.classifier) == (name, "heads.head")


def test_features_that_differ_are_refused(resnet: ImageEncoder) -> None:
    other = ImageEncoder(resnet.backbone, 2048)
    other.forward = lambda images: resnet(images) * 1.001  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"resnet50: timm's network of the same weights gives features that differ"):
        in_timm(other, Encoder(name="resnet50"), 64)
    broken = ImageEncoder(resnet.backbone, 2048, std=(float("nan"),) * 3)
    with pytest.raises(UserError, match="differ by inf"):
        in_torchvision(broken, Encoder(name="resnet50"), 64)


@pytest.mark.parametrize(
    ("config", "library", "told"),
    [
        (Encoder(name="resnet10"), "timm", r"resnet10: timm has no .* use --to safetensors or onnx"),
        (
            Encoder(name="resnet18", stem="small"),
            "torchvision",
            r"resnet18, small stem: torchvision has no ",
        ),
        (Encoder(name="resnet18", width=16), "torchvision", r"resnet18, width 16: torchvision has no network"),
        (Encoder(name="mnasnet0_5"), "timm", r"mnasnet0_5: timm has no .* --to torchvision, safetensors or onnx"),
        (Encoder(name="timm:test_vit"), "torchvision", r"timm:test_vit: .* use --to timm, hf, safetensors or onnx"),
    ],
)
def test_networks_without_a_counterpart(config: Encoder, library: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        (in_timm if library == "timm" else in_torchvision)(build_encoder(config, [32]), config, 32)


def test_every_vit_of_bgsweep_has_its_name_in_timm() -> None:
    from bgsweep.models.counterparts import _TIMM_NAMES

    assert set(_TIMM_NAMES) == set(SHAPES) and all(map(timm.is_model, _TIMM_NAMES.values()))
