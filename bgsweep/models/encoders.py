"""Encoders by name: torchvision's models without their classifier, a small ResNet-10, and a stem for small images."""

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import BasicBlock, ResNet

from bgsweep.config import Encoder
from bgsweep.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_NARROW_DEPTHS = {"resnet10": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2)}


def to_unit(images: Tensor) -> Tensor:
    """uint8 pictures (N, H, W, 3) as floats (N, 3, H, W) in [0, 1]; the result is channels-last in memory."""
    return images.permute(0, 3, 1, 2).float().div_(255)


class ImageEncoder(nn.Module):
    """A backbone that takes pictures in [0, 1] (N, 3, H, W) and gives features (N, `feature_dim`).

    Normalisation is part of it, so that whoever has the encoder has all that a picture needs.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, feature_dim: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.feature_dim = feature_dim
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.backbone((images - self.mean) / self.std)
        return features


def build_encoder(config: Encoder) -> ImageEncoder:
    """Make the encoder that the configuration names, with fresh weights from torch's global generator.

    Raises:
        UserError: no such model, or a stem or width that it does not have.
    """
    name = config.name
    if name in _NARROW_DEPTHS and (name == "resnet10" or config.width != 64):
        backbone: nn.Module = _NarrowResNet(_NARROW_DEPTHS[name], config.width)
    elif name in models.list_models(module=models):
        backbone = models.get_model(name, weights=None)
    else:
        raise UserError(f"encoder.name: no model {name!r}; give resnet10 or a model of torchvision, such as resnet50")
    if config.width != 64 and name not in _NARROW_DEPTHS:
        raise UserError(f"encoder.width: only resnet10 and resnet18 can be narrowed, not {name}")
    feature_dim = _drop_classifier(backbone)
    if config.stem == "small":
        if not isinstance(backbone, ResNet):
            raise UserError(f"encoder.stem: only ResNets have the small stem, not {name}")
        backbone.conv1 = nn.Conv2d(3, backbone.conv1.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(backbone.conv1.weight, mode="fan_out", nonlinearity="relu")
        backbone.maxpool = nn.Identity()
    return ImageEncoder(backbone, feature_dim)


class _NarrowResNet(ResNet):
    """torchvision's ResNet of basic blocks, with `width` channels in its first stage in place of 64."""

    def __init__(self, depths: tuple[int, int, int, int], width: int) -> None:
        super().__init__(BasicBlock, list(depths))
        self.inplanes = width
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        for stage, depth in enumerate(depths):
            layer = self._make_layer(BasicBlock, width << stage, depth, stride=1 if stage == 0 else 2)
            setattr(self, f"layer{stage + 1}", layer)
        self.fc = nn.Linear(width << 3, 1000)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _drop_classifier(backbone: nn.Module) -> int:
    """Replace the last linear layer by nothing, and say how many features reached it."""
    name, linear = [(n, m) for n, m in backbone.named_modules() if isinstance(m, nn.Linear)][-1]
    parent, _, leaf = name.rpartition(".")
    setattr(backbone.get_submodule(parent), leaf, nn.Identity())
    return linear.in_features
