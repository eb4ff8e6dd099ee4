"""Attention of transformers: where the last block's class token looks, and the share inside the mask."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bgsweep.data import Image
from bgsweep.evaluation.audit.attribution import Maps, maps_inside
from bgsweep.evaluation.audit.layers import EXTRA, last_layers, watched
from bgsweep.evaluation.audit.measure import Found, Measure, NotApplicable
from bgsweep.evaluation.audit.subject import Subject
from bgsweep.evaluation.frozen_model import to_unit

_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)


class _Weights(TorchFunctionMode):
    """Keeps the last attention weights (N, heads, queries, keys) in which all, or one query, see so many patches.

    Networks compute attention in their own classes, but by torch's functions: fused, as torch's own module
    (torchvision), or as a softmax.

    Args:
        images, patches: N, and the number of patches, before which the keys may have tokens of their own.
    """

    def __init__(self, images: int, patches: int) -> None:
        super().__init__()
        self.found: Tensor | None = None
        self._images, self._patches = images, patches

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            output, weights = func(*args, **{**kwargs, "need_weights": True, "average_attn_weights": False})
            self._keep(weights)
            return output, weights
        output = func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            self._keep(_weights(*args, **kwargs))
        elif func in _SOFTMAX:
            self._keep(output)
        return output

    def _keep(self, weights: Tensor) -> None:
        if weights.ndim != 4 or len(weights) != self._images:
            return
        queries, keys = weights.shape[2:]
        if keys - self._patches in EXTRA and queries in (1, keys):
            self.found = weights


def _weights(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *_: Any,
    scale: float | None = None,
    **__: Any,
) -> Tensor:
    """The weights by which `scaled_dot_product_attention` multiplies the values."""
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return torch.softmax(scores, dim=-1)


def attention_maps(network: nn.Module, images: Tensor) -> Tensor:
    """Attention (N, h, w) of the last block to the patches, mean of its heads.

    It is that of the class token; of a network without one, the mean over all patches.

    Args:
        images: (N, 3, H, W), in [0, 1].

    Raises:
        NotApplicable: the network has no attention among patches.
    """
    last, _ = last_layers(network, images[:1])
    with torch.no_grad():
        rows, columns = last.grid(watched(network, last, images[:1])[1]).shape[2:]
        with _Weights(len(images), rows * columns) as seen:
            network(images)
    if seen.found is None:
        raise NotApplicable("the network has no attention among patches of the image")
    extra = seen.found.shape[3] - rows * columns
    from_queries = seen.found[:, :, :1] if extra else seen.found
    found: Tensor = from_queries.mean(dim=(1, 2))[:, extra:].unflatten(1, (rows, columns)).float()
    return found


def attention(subject: Subject) -> Found:
    """`attention_focus` and `attention_inside`."""

    def maps_of(images: Image) -> Maps:
        found = attention_maps(subject.model.network, to_unit(torch.from_numpy(images), subject.model.device))
        # Each patch's attention over its own pixels.
        return np.asarray(F.interpolate(found[:, None], images.shape[1:3], mode="nearest")[:, 0].cpu(), np.float64)

    return maps_inside(subject, maps_of, share="attention_inside", focus="attention_focus")


MEASURE = Measure(
    "attention",
    "Where a transformer attends",
    "Attention of the class token in the last block (without one, of all patches), mean of the heads, and its share "
    "inside the mask; its focus is that share over the mask's area, 1 where it attends to all places alike.",
    attention,
)
