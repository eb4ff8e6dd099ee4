"""Vision transformers that take images of any size."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import VisionTransformer
from torchvision.ops import StochasticDepth

SHAPES = {
    "vit_s_16": (16, 384, 12, 6),
    "vit_b_16": (16, 768, 12, 12),
    "vit_b_32": (32, 768, 12, 12),
    "vit_l_16": (16, 1024, 24, 16),
    "vit_l_32": (32, 1024, 24, 16),
    "vit_h_14": (14, 1280, 32, 16),
}
"""Patch size in pixels, width, layers, heads."""


class AnySizeVisionTransformer(VisionTransformer):  # type: ignore[misc]  # torchvision has no types
    """torchvision's ViT, weight for weight, whose position embeddings are interpolated to the image's grid.

    ``image_size`` is the one that they were trained for. Pixels beyond the last whole patch of a row or column are not
    used. ``drop_path`` is the rate of stochastic depth in the last block; it rises linearly from 0 in the first.
    """

    def __init__(self, name: str, image_size: int, drop_path: float = 0.0) -> None:
        patch, width, layers, heads = SHAPES[name]
        super().__init__(image_size, patch, layers, heads, width, 4 * width)
        for depth, block in enumerate(self.encoder.layers if drop_path else ()):
            # The dropouts that end both branches of a block, of rate 0 here, stand just where the branches are added.
            rate = drop_path * depth / max(1, layers - 1)
            block.dropout = block.mlp[-1] = StochasticDepth(rate, "row")

    def forward(self, images: Tensor) -> Tensor:
        patches = self.conv_proj(images)
        rows, columns = patches.shape[2:]
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(images.shape[0], -1, -1), tokens], dim=1)
        tokens = self.encoder.dropout(tokens + self._positions(rows, columns))
        tokens = self.encoder.ln(self.encoder.layers(tokens))
        features: Tensor = self.heads(tokens[:, 0])
        return features

    def _positions(self, rows: int, columns: int) -> Tensor:
        """Position embeddings (1, 1 + rows x columns, width), by cubic interpolation."""
        positions: Tensor = self.encoder.pos_embedding
        side = self.image_size // self.patch_size
        # At their own size interpolation returns them bit for bit. Training skips it there, since its gradient on GPUs
        # depends on the order of additions; evaluation does not, so that one exported program fits all sizes.
        if self.training and rows == columns == side:
            return positions
        return _interpolated(positions, side, rows, columns)


def resized_positions(positions: Tensor, count: int) -> Tensor:
    """Position embeddings (1, 1 + side², width) for another number of tokens, 1 + side², as `forward` makes them."""
    side, wanted = (math.isqrt(tokens - 1) for tokens in (positions.shape[1], count))
    return _interpolated(positions, side, wanted, wanted)


def _interpolated(positions: Tensor, side: int, rows: int, columns: int) -> Tensor:
    grid = positions[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(rows, columns), mode="bicubic")
    return torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
