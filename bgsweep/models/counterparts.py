"""An encoder's weights as torchvision and timm name them, checked against a network that the library itself built."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from bgsweep.config import Encoder
from bgsweep.errors import UserError
from bgsweep.models.encoders import SINGLE_OUTPUT, ImageEncoder, last_linear, take_off, timm_library, timm_network
from bgsweep.models.vit import SHAPES

TOLERANCE = 1e-4
"""Largest difference of features, relative to the largest of them where that is above 1."""

_TIMM_NAMES = {
    "vit_s_16": "vit_small_patch16_224",
    "vit_b_16": "vit_base_patch16_224",
    "vit_b_32": "vit_base_patch32_224",
    "vit_l_16": "vit_large_patch16_224",
    "vit_l_32": "vit_large_patch32_224",
    "vit_h_14": "vit_huge_patch14_224",
}
_TIMM_KEYS = (  # of torchvision's ViT, in this order
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"^encoder\.ln\.", "norm."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
)


@dataclass(frozen=True)
class Counterpart:
    """The weights of a backbone under a library's names, and the library's network that takes them.

    Attributes:
        name: the network's name in the library, or bgsweep's if it is made from a class.
        options: keyword arguments that make it.
        call: Python that makes it.
        network: with the weights, without its classifier, in eval mode.
        classifier: path of the classifier that the call makes, for which there are no weights.
    """

    name: str
    options: Mapping[str, Any]
    call: str
    network: nn.Module
    classifier: str = ""

    @property
    def state(self) -> dict[str, Tensor]:
        """All tensors, contiguous, as torch.save and safetensors expect them."""
        return {key: value.contiguous() for key, value in self.network.state_dict().items()}


def in_torchvision(encoder: ImageEncoder, config: Encoder, size: int) -> Counterpart:
    """The encoder as a network of torchvision.

    Args:
        config: the network of the encoder.
        size: side in pixels of the images that its position embeddings, if any, are for.

    Raises:
        UserError: torchvision has no network that computes the same.
    """
    _refuse_own(config, "torchvision")
    name, options = config.name.removeprefix("timm:").partition(".")[0], dict[str, Any]()
    if config.name in SHAPES:
        options = {"image_size": size}
    if name in models.list_models(module=models):
        options |= SINGLE_OUTPUT.get(name, {})
        network, made_by = models.get_model(name, weights=None, **options), name
    elif config.name in SHAPES:
        patch, width, layers, heads = SHAPES[name]
        options |= {"patch_size": patch, "num_layers": layers, "num_heads": heads}
        options |= {"hidden_dim": width, "mlp_dim": 4 * width}
        network, made_by = models.VisionTransformer(**options), "VisionTransformer"
    else:
        raise _refusal(config, "torchvision")
    classifier = last_linear(network, name)
    take_off(network, classifier)
    call = f"torchvision.models.{made_by}({_said(options)})"
    found = Counterpart(name, options, call, network, classifier)
    return _filled(found, encoder.backbone.state_dict(), encoder, config, size)


def in_timm(encoder: ImageEncoder, config: Encoder, size: int) -> Counterpart:
    """The encoder as a network of timm; as `in_torchvision`.

    Raises:
        UserError: timm is not installed, or has no network that computes the same.
    """
    _refuse_own(config, "timm")
    # Asked for by its prefix, so that a machine without timm is told how to install it.
    name = config.name if config.name.startswith("timm:") else f"timm:{_TIMM_NAMES.get(config.name, config.name)}"
    try:
        timm_library(name)
    except UserError as error:
        raise (_refusal(config, "timm") if "pip install" not in str(error) else error) from error
    bare = name.removeprefix("timm:").partition(".")[0]
    network, options = timm_network(f"timm:{bare}", size)
    state = encoder.backbone.state_dict()
    if config.name in SHAPES:
        state = {timm_key(key): value for key, value in state.items()}
    said = ", ".join(filter(None, (f'"{bare}", num_classes=0', _said(options))))
    return _filled(Counterpart(bare, options, f"timm.create_model({said})", network), state, encoder, config, size)


def _filled(
    found: Counterpart, state: Mapping[str, Tensor], encoder: ImageEncoder, config: Encoder, size: int
) -> Counterpart:
    """The counterpart with the weights, compared with the encoder by the features of random images."""
    library = found.call.partition(".")[0]
    try:
        found.network.load_state_dict(state)
    except RuntimeError as error:  # networks of the same name, but not of the same layers
        raise _refusal(config, library) from error
    found.network.eval()
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, theirs = encoder(images), found.network((images - encoder.mean) / encoder.std)
    if worst := difference(ours, theirs):
        raise UserError(
            f"{config.name}: {library}'s network of the same weights gives features that differ by {worst:.1e}; use "
            "--to safetensors or onnx"
        )
    return found


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of two encoders' features, as a share of the largest feature; 0 within `TOLERANCE`.

    Infinite where a feature is not a number.
    """
    worst = float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1))
    return 0.0 if worst <= TOLERANCE else math.inf if math.isnan(worst) else worst


def _refuse_own(config: Encoder, library: str) -> None:
    if _own(config):
        raise _refusal(config, library)


def _own(config: Encoder) -> bool:
    """True for networks that only bgsweep has."""
    return config.stem == "small" or config.width != 64 or config.name == "resnet10"


def _refusal(config: Encoder, library: str) -> UserError:
    stem = "small stem" if config.stem == "small" else ""
    width = f"width {config.width}" if config.width != 64 else ""
    named = ", ".join(filter(None, (config.name, stem, width)))
    other = "timm, hf, " if library == "torchvision" else "" if config.name.startswith("timm:") else "torchvision, "
    other = "" if _own(config) else other
    return UserError(f"{named}: {library} has no network that computes the same; use --to {other}safetensors or onnx")


def timm_key(key: str) -> str:
    """timm's name of a tensor of torchvision's ViT; other networks have the same names in both."""
    for pattern, replacement in _TIMM_KEYS:
        key = re.sub(pattern, replacement, key)
    return key


def _said(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in options.items())
