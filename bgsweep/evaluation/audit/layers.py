"""The layers of a network that have a place in the image: feature maps of CNNs, patches of transformers."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bgsweep.evaluation.audit.measure import NotApplicable

EXTRA = (0, 1, 2, 5)
"""Numbers of tokens before the patches: none, a class token, that and a distilled one or four registers."""


@dataclass(frozen=True)
class Layer:
    """A module whose output has a place in the image.

    Attributes:
        grid: its output (N, …) as (N, D, h, w).
    """

    module: nn.Module
    grid: Callable[[Tensor], Tensor]


def grid_of(output: Any, size: int) -> Callable[[Tensor], Tensor] | None:
    """The function that makes a module's output (N, D, h, w), h and w at least 2; None where it has no such form.

    Args:
        size: side of the image in pixels; maps larger than a quarter of it are taken for something else.
    """
    if not isinstance(output, Tensor):
        return None
    if output.ndim == 4:
        _, first, rows, columns = output.shape
        if rows == columns and 2 <= rows <= max(2, size // 4):
            return lambda given: given
        if first == rows and 2 <= first <= max(2, size // 4):  # channels last, as Swin's
            return lambda given: given.permute(0, 3, 1, 2)
    if output.ndim == 3:
        for extra in EXTRA:
            side = math.isqrt(max(0, output.shape[1] - extra))
            if side >= 2 and side * side == output.shape[1] - extra:
                return lambda given, extra=extra, side=side: given[:, extra:].transpose(1, 2).unflatten(2, (side, side))  # type: ignore[misc]
    return None


def last_layers(network: nn.Module, image: Tensor) -> tuple[Layer, Layer]:
    """The last layer with a place in the image, and the last of them on whose places the features depend.

    They differ in transformers that read the class token: what is in the patches after the last block is lost, so that
    no attribution begins there. Of projections inside a block, which are wider than its tokens, none is taken.

    Args:
        image: (1, 3, H, W), in [0, 1].

    Raises:
        NotApplicable: the network has none.
    """
    seen: list[tuple[nn.Module, Tensor, Callable[[Tensor], Tensor]]] = []

    def watch(module: nn.Module, _: Any, output: Any) -> None:
        if (grid := grid_of(output, image.shape[-1])) is not None and output.requires_grad:
            seen.append((module, output, grid))

    handles = [module.register_forward_hook(watch) for module in network.modules()]
    try:
        with torch.enable_grad():
            features = network(image.detach().clone().requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise NotApplicable("the network has no layer with places of the image")
    width = seen[-1][2](seen[-1][1]).shape[1]
    alike = [one for one in seen if one[2](one[1]).shape[1] == width]
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(0)).to(features)
    outputs = [output for _, output, _ in alike]
    gradients = torch.autograd.grad((features * weights).sum(), outputs, allow_unused=True)
    for (module, _, grid), gradient in zip(reversed(alike), reversed(gradients), strict=True):
        if gradient is not None and bool(grid(gradient).abs().amax() > 0):
            return Layer(alike[-1][0], alike[-1][2]), Layer(module, grid)
    raise NotApplicable("the features depend on no layer with places of the image")


def watched(network: nn.Module, layer: Layer, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features (N, F) of images, and the layer's output (N, D, h, w) that they came from, in one graph."""
    kept: list[Tensor] = []
    handle = layer.module.register_forward_hook(lambda _, __, output: kept.append(output))
    try:
        features = network(images)
    finally:
        handle.remove()
    return features, kept[-1]
