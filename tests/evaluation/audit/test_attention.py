"""Attention of transformers: of constructed ones whose attention is known, and of torchvision's and timm's."""

from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bgsweep.data import Splits
from bgsweep.evaluation.audit import attention
from bgsweep.evaluation.audit.measure import NotApplicable
from bgsweep.models.vit import AnySizeVisionTransformer
from tests.evaluation.audit.conftest import ENCODERS, Pooled, subject


class Attends(nn.Module):
    """A class token that attends, all patches alike, to those of 4 x 4 pixels where a weight is."""

    def __init__(self, weight: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.cells, self.tokens = weight, nn.AvgPool2d(4), nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        weight = self.weight(images).expand(len(images), 1, *images.shape[2:])
        cells, seen = (self.cells(each).flatten(2).transpose(1, 2) for each in (images, weight))
        tokens = self.tokens(F.pad(cells, (0, 0, 1, 0)))
        keys = F.pad((seen > 0.2).float() * 40, (0, 0, 1, 0))
        query = torch.ones(len(images), 1, 1, 1)
        attended = F.scaled_dot_product_attention(query, keys[:, None], tokens[:, None], scale=1.0)
        return attended[:, 0, 0]


@pytest.mark.parametrize(
    ("encoder", "value"),
    [("background", 0), ("centre", 1), ("foreground", (13 / 16) ** 2), ("texture", (13 / 32) ** 2)],
)
def test_the_share_inside_is_where_the_encoder_attends(encoder: str, value: float, constructed: Splits) -> None:
    focus, inside = attention.attention(subject(Attends(ENCODERS[encoder]), constructed)).values
    assert inside.counted.all() and inside.value == pytest.approx(value, abs=0.02)
    area = (13 / 32) ** 2  # without the rim
    assert focus.value == pytest.approx(inside.value / area, rel=0.05)


def test_torchvisions_attention_is_its_own_modules() -> None:
    torch.manual_seed(0)
    network, images = AnySizeVisionTransformer("vit_s_16", 64).eval(), torch.rand(2, 3, 64, 64)
    network.heads = nn.Identity()
    given: list[Tensor] = []
    last = network.encoder.layers[-1].self_attention
    handle = last.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    network(images)
    handle.remove()
    weights = last(given[0], given[0], given[0], need_weights=True)[1]
    found = attention.attention_maps(network, images)
    assert torch.allclose(found, weights[:, 0, 1:].unflatten(1, (4, 4)), atol=1e-6)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit_small_patch14_reg4_dinov2"]
)
def test_timms_attention_is_alike_fused_or_written_out(name: str) -> None:
    torch.manual_seed(0)
    network = timm.create_model(
        name, pretrained=False, num_classes=0, img_size=56 if "14" in name else 64, depth=2
    ).eval()
    images = torch.rand(2, 3, *network.patch_embed.img_size)
    fused = attention.attention_maps(network, images)
    for block in network.blocks:
        block.attn.fused_attn = False
    assert fused.shape == (2, 4, 4) and (fused.sum(dim=(1, 2)) < 1).all()
    assert torch.allclose(fused, attention.attention_maps(network, images), atol=1e-6)


def test_networks_without_attention_are_told(constructed: Splits) -> None:
    with pytest.raises(NotApplicable, match="no attention among patches"):
        attention.attention(subject(Pooled(ENCODERS["centre"]), constructed))
