"""Weights of other programs: found behind whatever names their authors gave them, refused where they do not fit."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision import models

from bgsweep.errors import UserError
from bgsweep.models.pretrained import load_pretrained

State = dict[str, Tensor]
CHILDREN = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}


def resnet(seed: int) -> models.ResNet:
    torch.manual_seed(seed)
    network = models.resnet18()
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return network.eval()


@pytest.fixture(scope="module")
def wanted() -> State:
    return resnet(0).state_dict()


@pytest.fixture(scope="module")
def other() -> State:
    return resnet(1).state_dict()


def body(state: State, prefix: str) -> State:
    return {prefix + key: value for key, value in state.items() if not key.startswith("fc.")}


def numbered(state: State, prefix: str) -> State:
    kept = {key: value for key, value in state.items() if not key.startswith("fc.")}
    return {f"{prefix}{CHILDREN[key.split('.')[0]]}.{key.partition('.')[2]}": value for key, value in kept.items()}


def uncounted(state: State) -> State:
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


MoCo = {"module.encoder_q.fc.0.weight": torch.zeros(512, 512), "module.queue": torch.zeros(128, 64)}
FILES: dict[str, Callable[[State, State], object]] = {
    "torchvision": lambda a, b: body(a, ""),
    "MoCo": lambda a, b: {
        "epoch": 200,
        "arch": "resnet18",
        "state_dict": {**body(b, "module.encoder_k."), **MoCo, **body(a, "module.encoder_q.")},
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.03}]},
    },
    "MoCo linear": lambda a, b: {"state_dict": {**body(a, "module."), "module.fc.bias": torch.zeros(1000)}},
    "BYOL converted": lambda a, b: uncounted(body(a, "")),
    "BYOL trained": lambda a, b: {
        "target_network": body(b, "net."),
        "online_network": {**body(a, "net."), "projector.0.weight": torch.zeros(3)},
    },
    "SwAV": lambda a, b: {**body(a, "module."), "module.prototypes.weight": torch.zeros(3000, 128)},
    "DINO": lambda a, b: {
        "student": body(b, "module.backbone."),
        "teacher": {**body(a, "backbone."), "head.last_layer.weight_g": torch.ones(9)},
        "args": argparse.Namespace(arch="resnet18"),
        "epoch": 99,
    },
    "lightly": lambda a, b: {
        "state_dict": {**numbered(a, "backbone."), **numbered(b, "backbone_momentum.")},
        "pytorch-lightning_version": "2.6",
    },
    "lightly student": lambda a, b: {"state_dict": {**body(b, "student_backbone."), **body(a, "backbone.")}},
}


@pytest.mark.parametrize("kind", FILES)
def test_the_right_network_is_found_behind_its_authors_names(
    kind: str, wanted: State, other: State, tmp_path: Path
) -> None:
    torch.save(FILES[kind](wanted, other), tmp_path / "weights.pth")
    loaded = load_pretrained(f"resnet18={tmp_path / 'weights.pth'}", 64)
    expected = resnet(0)
    expected.fc = torch.nn.Identity()  # type: ignore[assignment]
    pictures = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        normal = (pictures - loaded.encoder.mean) / loaded.encoder.std
        torch.testing.assert_close(loaded.encoder(pictures), expected(normal))
    assert loaded.head is None
    assert not loaded.encoder.training
    assert loaded.encoder.feature_dim == 512


def test_a_classifier_of_imagenet_is_kept_beside_the_encoder(wanted: State, tmp_path: Path) -> None:
    save_file({f"module.{key}": value for key, value in wanted.items()}, tmp_path / "weights.safetensors")
    loaded = load_pretrained(f"torchvision:resnet18={tmp_path / 'weights.safetensors'}", 64)
    assert loaded.head is not None
    pictures = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        logits = loaded.head(loaded.encoder(pictures))
        torch.testing.assert_close(logits, resnet(0)((pictures - loaded.encoder.mean) / loaded.encoder.std))


def test_dinos_transformer_is_timms_by_name(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval()
    state = {f"module.backbone.{key}": value for key, value in network.state_dict().items()}
    torch.save({"teacher": state}, tmp_path / "dino.pth")
    loaded = load_pretrained(f"timm:vit_tiny_patch16_224={tmp_path / 'dino.pth'}", 224)
    pictures = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        features = loaded.encoder(pictures)
        torch.testing.assert_close(features, network((pictures - loaded.encoder.mean) / loaded.encoder.std))
    assert loaded.head is None


class Code:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("run",)


def test_what_does_not_fit_is_said_in_one_line(wanted: State, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(body(wanted, ""), file)
    with pytest.raises(UserError, match=r"layer1\.0\.conv1\.weight has shape .* name the network|missing, the first"):
        load_pretrained(f"resnet50={file}", 64)
    torch.save({"words": torch.zeros(2)}, file)
    with pytest.raises(UserError, match=r"none of its weights is called conv1\.weight, as the network's are; it has w"):
        load_pretrained(f"resnet18={file}", 64)
    torch.save({"state_dict": Code()}, file)
    with pytest.raises(UserError, match="holds objects of"):
        load_pretrained(f"resnet18={file}", 64)
    file.write_bytes(b"nothing")
    with pytest.raises(UserError, match="not weights that can be read safely"):
        load_pretrained(f"resnet18={file}", 64)
    with pytest.raises(UserError, match="no such file"):
        load_pretrained(f"resnet18={tmp_path / 'none.pth'}", 64)
    with pytest.raises(UserError, match="no such model in torchvision"):
        load_pretrained(f"resnet19={file}", 64)
    with pytest.raises(UserError, match="has no published weights; name a file"):
        load_pretrained("vit_s_16", 64)


def test_a_published_linear_layer_is_read_from_its_own_file(tmp_path: Path, wanted: State) -> None:
    torch.save(body(wanted, ""), tmp_path / "encoder.pth")
    layer = torch.nn.Linear(512, 1000)
    weight, bias = layer.weight.detach(), layer.bias.detach()
    files = {
        "moco": {"state_dict": {**body(wanted, "module."), "module.fc.weight": weight, "module.fc.bias": bias}},
        "swav": {"state_dict": {"module.linear.weight": weight, "module.linear.bias": bias}},
        "dino": {"state_dict": {"module.linear.weight": weight, "module.linear.bias": bias}, "epoch": 100},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / f"{name}.pth")
        loaded = load_pretrained(f"resnet18={tmp_path / 'encoder.pth'}+{tmp_path / name}.pth", 64)
        assert (
            loaded.head is not None and torch.equal(loaded.head.weight, weight) and torch.equal(loaded.head.bias, bias)
        )
        assert f"{name}.pth" in loaded.weights
    torch.save({"linear.weight": torch.zeros(1000, 384), "linear.bias": torch.zeros(1000)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"linear\.weight takes 384 features, the network gives 512"):
        load_pretrained(f"resnet18={tmp_path / 'encoder.pth'}+{tmp_path / 'other.pth'}", 64)
    with pytest.raises(UserError, match="0 linear layers of 1000 or 9 classes"):
        load_pretrained(f"resnet18={tmp_path / 'encoder.pth'}+{tmp_path / 'encoder.pth'}", 64)
    nine = {"fc.weight": torch.ones(9, 512), "fc.bias": torch.zeros(9)}  # as MadryLab's models of IN-9L
    torch.save({**body(wanted, ""), **nine}, tmp_path / "in9l.pth")
    head = load_pretrained(f"resnet18={tmp_path / 'in9l.pth'}", 64).head
    assert head is not None and head.out_features == 9 and bool((head.weight == 1).all())


def test_timms_own_crop_and_interpolation_come_with_its_models(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("resnet10t")
    torch.save(network.state_dict(), tmp_path / "w.pth")
    loaded = load_pretrained(f"timm:resnet10t={tmp_path / 'w.pth'}", 64)
    config = network.pretrained_cfg
    assert loaded.preprocessing is not None
    assert loaded.preprocessing.resize == int(config["input_size"][-1] / config["crop_pct"])
    assert (loaded.preprocessing.crop, loaded.preprocessing.interpolation) == (176, "bicubic")


def test_models_of_the_hugging_face_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of timm's form is read; without a network the hub is refused in one line."""
    timm = pytest.importorskip("timm")
    network = timm.create_model("resnet10t")
    timm.models.save_for_hf(network, tmp_path / "model")
    loaded = load_pretrained(f"hf:{tmp_path / 'model'}", 64)
    images = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(network.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    torch.testing.assert_close(
        loaded.encoder(images),
        network.eval().forward_head(network.forward_features((images - mean) / std), pre_logits=True),
    )
    assert loaded.head is not None and loaded.head.out_features == 1000
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="hf:timm/no-such-model: cannot be loaded") as error:
        load_pretrained("hf:timm/no-such-model", 64)
    assert "\n" not in str(error.value)
