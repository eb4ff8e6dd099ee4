"""The saliency network, a ResNet with a feature pyramid, and its export to ONNX."""

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import ResNet

from bgsweep.errors import UserError
from bgsweep.models.onnx_program import onnx_program

_STAGES = ("layer1", "layer2", "layer3", "layer4")


class SaliencyNetwork(nn.Module):
    """From images (N, 3, H, W), normalised, to foreground logits (N, 1, H, W).

    A feature pyramid (Lin et al. 2017): from the deepest stage of the ResNet on, each adds detail to the map.

    Args:
        backbone: its weights are copied.
        width: channels of the pyramid.

    Raises:
        UserError: the backbone is not a ResNet.
    """

    def __init__(self, backbone: nn.Module, width: int = 48) -> None:
        super().__init__()
        if not isinstance(backbone, ResNet):
            raise UserError(f"encoder: a {type(backbone).__name__} cannot learn masks; name a ResNet")
        self.backbone = copy.deepcopy(backbone).requires_grad_(True)
        depths = [backbone.conv1.out_channels, *(_channels(getattr(backbone, stage)) for stage in _STAGES)]
        self.lateral = nn.ModuleList(nn.Conv2d(depth, width, 1, bias=False) for depth in depths)
        self.context = nn.Linear(depths[-1], width)
        self.smooth = nn.ModuleList(_block(width) for _ in depths)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        net = self.backbone
        found = net.relu(net.bn1(net.conv1(images)))
        features = [found]
        found = net.maxpool(found)
        for stage in _STAGES:
            found = getattr(net, stage)(found)
            features.append(found)
        level = self.context(found.mean(dim=(2, 3)))[:, :, None, None]
        for lateral, smooth, feature in zip(
            reversed(self.lateral), reversed(self.smooth), reversed(features), strict=True
        ):
            size = feature.shape[2:]
            upper = level.expand(-1, -1, *size) if level.shape[2:] == (1, 1) else _scaled(level, size)
            level = smooth(lateral(feature) + upper)
        return _scaled(self.head(level), images.shape[2:])


def onnx_bytes(network: SaliencyNetwork, side: int) -> bytes:
    """The network as ONNX: float32 (N, 3, side, side), any N, to probabilities (N, 1, side, side).

    Raises:
        UserError: the packages that write ONNX are not installed.
    """
    whole = nn.Sequential(network, nn.Sigmoid())
    program = onnx_program(whole, torch.zeros(2, 3, side, side), "images", "foreground", {0: "n"})
    return cast(bytes, program.model_proto.SerializeToString())


def saliency_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - F of each map, averaged (DeepUSPS, equation 1, with beta = 1), and the binary cross entropy of its pixels.

    The prediction that maximises F marks a pixel as foreground if its probability exceeds F / 2; while the network has
    learned little, F is small and that is far too much foreground. With F alone the student was worse than its best
    teacher (max F .866 against .906), with the sum it is better (.917; benchmarks/RESULTS.md).

    Args:
        logits: N x 1 x H x W.
        targets: the same shape, 0 to 1.
    """
    predicted = logits.float().sigmoid()
    hits = (predicted * targets).sum(dim=(1, 2, 3))
    both = predicted.sum(dim=(1, 2, 3)) + targets.sum(dim=(1, 2, 3))
    f_loss = (1 - 2 * hits / (both + 1e-5)).mean()
    return f_loss + F.binary_cross_entropy_with_logits(logits.float(), targets)


def _channels(stage: nn.Module) -> int:
    return [module.out_channels for module in stage.modules() if isinstance(module, nn.Conv2d)][-1]


def _block(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


def _scaled(level: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(level, size=size, mode="bilinear", align_corners=False)
