"""Encoders by name: models of torchvision and timm without their classifier, ViT-S, and ResNets for small images."""

import contextlib
import difflib
import importlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import BasicBlock, ResNet

from bgsweep.config import Encoder
from bgsweep.config.base import nearest
from bgsweep.errors import UserError
from bgsweep.models.vit import SHAPES, AnySizeVisionTransformer

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SINGLE_OUTPUT: dict[str, dict[str, Any]] = {
    name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")
}
_VECTOR = 16  # floats in the widest vector register of a CPU
_NARROW_DEPTHS = {"resnet10": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2)}


def to_unit(images: Tensor) -> Tensor:
    """uint8 images (N, H, W, 3) as floats (N, 3, H, W) in [0, 1]; the result is channels-last in memory."""
    return images.permute(0, 3, 1, 2).float().div_(255)


class ImageEncoder(nn.Module):
    """A backbone that takes images in [0, 1] (N, 3, H, W) and gives features (N, `feature_dim`).

    Normalisation is part of it, so that whoever has the encoder has all that an image needs.
    """

    mean: Tensor
    std: Tensor
    memory_format: torch.memory_format = torch.preserve_format
    """Of the images as the backbone gets them: convolutions take theirs from these, not from their weights."""

    def __init__(
        self,
        backbone: nn.Module,
        feature_dim: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.feature_dim = feature_dim
        self._compiled = False
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        images = (images - self.mean) / self.std
        if self.memory_format != torch.preserve_format:
            images = images.contiguous(memory_format=self.memory_format)
        if self._compiled:
            # Large and small crops get code of their own. Where the size differs from call to call torch would else
            # make one for all sizes, which is slower; only the batch may be of any length.
            torch._dynamo.mark_static(images, 2)
            torch._dynamo.mark_static(images, 3)
        features: Tensor = self.backbone(images)
        return features

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the backbone in place, as `nn.Module.compile`, for each size of images by itself."""
        self.backbone.compile(*args, **kwargs)
        self._compiled = True


def build_encoder(config: Encoder, sizes: Sequence[int] = (224,)) -> ImageEncoder:
    """Build the configured encoder, with fresh weights from torch's global generator.

    Args:
        sizes: heights (and widths) in pixels of the images that it will be trained on. Position embeddings of
            transformers are made for the first.

    Raises:
        UserError: no such model, a stem or width that it does not have, or a size that it cannot take.
    """
    name = config.name
    with _sizes_refused(name, sizes[0]):
        backbone = _backbone(config, sizes[0])
    if config.stem == "small":
        if not isinstance(backbone, ResNet):
            raise UserError(f"encoder.stem: only ResNets have the small stem, not {name}; leave it out")
        backbone.conv1 = nn.Conv2d(3, backbone.conv1.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(backbone.conv1.weight, mode="fan_out", nonlinearity="relu")
        backbone.maxpool = nn.Identity()
    return ImageEncoder(backbone, max(feature_dim(backbone, name, size) for size in sizes))


def _backbone(config: Encoder, size: int) -> nn.Module:
    """The named network without its classifier; refuses an image size that it cannot be built for."""
    if config.drop_path and config.name not in SHAPES and not config.name.startswith("timm:"):
        raise UserError(
            f"encoder.drop_path: {config.name} cannot be given one; use a vit_… or a timm:NAME, or set it to 0"
        )
    backbone = own_or_torchvision(config, size)
    if backbone is None:
        return timm_network(config.name, size, config.drop_path)[0]
    take_off(backbone, last_linear(backbone, config.name))
    return backbone


def own_or_torchvision(config: Encoder, size: int) -> nn.Module | None:
    """The named network with its classifier of 1000 classes; None if neither bgsweep nor torchvision has it."""
    name = config.name
    if (
        config.width != 64
        and name not in _NARROW_DEPTHS
        and (name in SHAPES or name in models.list_models(module=models))
    ):
        raise UserError(f"encoder.width: only resnet10 and resnet18 can be narrowed, not {name}; leave it out")
    if name in _NARROW_DEPTHS and (name == "resnet10" or config.width != 64):
        return _NarrowResNet(_NARROW_DEPTHS[name], config.width)
    if name in SHAPES:
        return AnySizeVisionTransformer(name, size, config.drop_path)
    if name in models.list_models(module=models):
        network: nn.Module = models.get_model(name, weights=None, **SINGLE_OUTPUT.get(name, {}))
        return network
    return None


def timm_library(name: str) -> Any:
    """timm, if it is installed and has a model of this name.

    Raises:
        UserError: it is not, or has not.
    """
    try:
        timm: Any = importlib.import_module("timm")
    except ImportError as error:
        known = [*_NARROW_DEPTHS, *SHAPES, *models.list_models(module=models)]
        cure = "install timm: pip install 'timm>=1.0,<2'" if name.startswith("timm:") else nearest(name, known)
        raise UserError(f"encoder.name: no model {name!r} in torchvision; {cure}") from error
    if not name.startswith(("timm:hf-hub:", "timm:local-dir:")) and not timm.is_model(name.removeprefix("timm:")):
        bare, prefix = name.removeprefix("timm:"), "timm:" if name.startswith("timm:") else ""
        own = [] if prefix else [*_NARROW_DEPTHS, *SHAPES, *models.list_models(module=models)]
        near = difflib.get_close_matches(bare, own or timm.list_models(), n=1)
        cure = f"did you mean `{prefix}{near[0]}`?" if near else "give resnet50, vit_s_16 or timm:NAME"
        raise UserError(f"encoder.name: no model {name!r} in torchvision or timm; {cure}")
    return timm


def timm_network(name: str, size: int, drop_path: float = 0.0) -> tuple[nn.Module, dict[str, Any]]:
    """timm's model without its classifier, and the arguments of `create_model` that made it for an image size.

    Raises:
        UserError: there is no such model, or it has no stochastic depth.
    """
    create = timm_library(name).create_model
    dropping = {"drop_path_rate": drop_path} if drop_path else {}
    make: Callable[..., nn.Module] = partial(create, name.removeprefix("timm:"), num_classes=0, **dropping)
    # Only transformers are made for an image size, and not all of those can change it later.
    for options in ({"img_size": size, "dynamic_img_size": True}, {"img_size": size}):
        with contextlib.suppress(TypeError):
            return make(**options), options
    try:
        return make(), {}
    except TypeError as error:
        if not drop_path:
            raise
        raise UserError(f"encoder.drop_path: {name} has no stochastic depth; set it to 0") from error


class _Shortcut(nn.Conv2d):
    """A strided 1 x 1 convolution that drops pixels before it multiplies instead of afterwards: the same result.

    Of fewer channels than a vector register holds, oneDNN's gradient of the strided form writes beyond its memory
    (oneDNN's issue 6035): a crash, or wrong gradients, on processors with AVX2 and no AMX.
    """

    def forward(self, input: Tensor) -> Tensor:
        down, across = self.stride
        return F.conv2d(input[..., ::down, ::across], self.weight)


class _NarrowResNet(ResNet):  # type: ignore[misc]  # torchvision has no types
    """torchvision's ResNet of basic blocks, with `width` channels in its first stage instead of 64."""

    def __init__(self, depths: tuple[int, int, int, int], width: int) -> None:
        super().__init__(BasicBlock, list(depths))
        self.inplanes = width
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        for stage, depth in enumerate(depths):
            layer = self._make_layer(BasicBlock, width << stage, depth, stride=1 if stage == 0 else 2)
            if stage and (before := width << (stage - 1)) < _VECTOR:
                layer[0].downsample[0] = _Shortcut(before, width << stage, 1, stride=2, bias=False)
            setattr(self, f"layer{stage + 1}", layer)
        self.fc = nn.Linear(width << 3, 1000)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def last_linear(network: nn.Module, name: str) -> str:
    """Path of the network's last linear layer, its classifier.

    Raises:
        UserError: there is none.
    """
    linears: list[str] = [path for path, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linears:
        raise UserError(
            f"encoder.name: {name} ends in no linear classifier that could be taken off; name another model"
        )
    return linears[-1]


def take_off(network: nn.Module, path: str) -> nn.Module:
    """Replace the layer at a path by an identity; returns the layer."""
    layer = network.get_submodule(path)
    parent, _, leaf = path.rpartition(".")
    setattr(network.get_submodule(parent), leaf, nn.Identity())
    return layer


@torch.no_grad()
def feature_dim(backbone: nn.Module, name: str, size: int) -> int:
    """The number of features, found by a forward pass of a black image."""
    backbone.eval()
    with _sizes_refused(name, size):
        features = backbone(torch.zeros(1, 3, size, size))
    backbone.train()
    if features.ndim != 2:
        raise UserError(
            f"encoder.name: {name} gives features of shape {tuple(features.shape[1:])}, not a vector; name another"
        )
    return int(features.shape[1])


@contextlib.contextmanager
def _sizes_refused(name: str, size: int) -> Iterator[None]:
    """Turn a network's own error about an image size into a `UserError`."""
    try:
        yield
    except (ValueError, AssertionError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"encoder.name: {name} cannot take views of {size} px ({reason}); change the size of the views"
        ) from error
