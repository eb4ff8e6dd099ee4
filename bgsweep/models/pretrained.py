"""Pretrained encoders: published weights of torchvision and timm, and checkpoints of MoCo, BYOL, SwAV, DINO."""

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import ResNet

from bgsweep.config import Encoder, Preprocessing
from bgsweep.errors import UserError, one_line
from bgsweep.models.encoders import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageEncoder,
    feature_dim,
    last_linear,
    own_or_torchvision,
    take_off,
    timm_library,
)
from bgsweep.models.safe_load import load_safely, why_unreadable

IMAGENET_CLASSES, IMAGENET9_CLASSES = 1000, 9
# Of two networks in one file, the ones that the methods' authors do not evaluate.
_PASSED_OVER = ("encoder_k", "target", "momentum", "student")
# The children of a torchvision ResNet as lightly's examples number them, in an nn.Sequential.
_NUMBERED = {"conv1.": "0.", "bn1.": "1.", "layer1.": "4.", "layer2.": "5.", "layer3.": "6.", "layer4.": "7."}


@dataclass(frozen=True)
class Pretrained:
    """An encoder in eval mode on the CPU, and its origin.

    Attributes:
        head: its classifier of ImageNet's 1000 classes, or of ImageNet-9's nine, if it came with one.
        preprocessing: crop and interpolation that timm has for the model.
    """

    encoder: ImageEncoder
    head: nn.Linear | None
    weights: str
    preprocessing: Preprocessing | None = None


def load_pretrained(text: str, size: int = 224) -> Pretrained:
    """Load the encoder of ``NETWORK=FILE``, ``NETWORK=FILE+LAYER`` or ``NETWORK``.

    ``NETWORK`` is ``torchvision:NAME``, ``timm:NAME``, ``hf:ID`` (of timm's form, on the Hugging Face hub or a folder),
    or a bare name as in `Encoder.name`; without a file its published weights are downloaded (torchvision's
    IMAGENET1K_V1, timm's default). A file may be a state dict or a training
    checkpoint (PyTorch or safetensors) of torchvision, timm, MoCo, SwAV, DINO, lightly or a PyTorch version of BYOL.
    ``LAYER`` is a file with the linear layer that the method's authors trained on the frozen encoder.

    Args:
        size: height and width in pixels of the images to come.

    Raises:
        UserError: no such network or file, no network connection, or a file whose weights are not the network's.
    """
    network, _, file = text.partition("=")
    name = network.removeprefix("torchvision:")
    if name.startswith("hf:"):
        id_or_folder = name.removeprefix("hf:")
        name = f"timm:{'local-dir' if Path(id_or_folder).is_dir() else 'hf-hub'}:{id_or_folder}"
    module, classifier, statistics = _timm(name, not file) if name.startswith("timm:") else _own(name, size, not file)
    preprocessing = _of_timm(module) if name.startswith("timm:") else None
    origin, nine = f"published weights of {network}", None
    file, layer_file = _with_layer(file)
    if file:
        tensors = read_tensors(Path(file))
        prefix = fill_from(module, classifier, tensors, file)
        nine = None if classifier is None else _linear(tensors, f"{prefix}{classifier}.", IMAGENET9_CLASSES)
        origin = f"{file} ({prefix}*)" if prefix else file
    module.eval().requires_grad_(False)
    head = nine
    if classifier is not None:
        layer = take_off(module, classifier)
        head = layer if isinstance(layer, nn.Linear) and _is_classifier(layer) else nine
    encoder = ImageEncoder(module, feature_dim(module, name, size), *statistics)
    if layer_file:
        head = read_layer(Path(layer_file), encoder.feature_dim)
        origin = f"{origin}, with the linear layer of {layer_file}"
    return Pretrained(encoder.eval().requires_grad_(False), head, origin, preprocessing)


def _with_layer(file: str) -> tuple[str, str]:
    """Apart the two files of ``FILE+LAYER``; a plus may be part of a name too."""
    if "+" not in file or Path(file).exists():
        return file, ""
    first, _, second = file.rpartition("+")
    return first, second


def read_layer(path: Path, features: int) -> nn.Linear:
    """A linear layer that classifies ImageNet's 1000 or ImageNet-9's nine classes, of a file that may hold more.

    Raises:
        UserError: the file has none, several, or one of another number of features.
    """
    tensors = read_tensors(path)
    names = [key.removesuffix("weight") for key, each in tensors.items() if _is_layer(key, each)]
    if len(names) != 1:
        raise UserError(
            f"{path}: {len(names)} linear layers of 1000 or 9 classes in it, called fc, linear, head or classifier; "
            "name the file of one, such as MoCo's, SwAV's or DINO's linear evaluation writes"
        )
    found = _linear(tensors, names[0], len(tensors[f"{names[0]}weight"]))
    width = tensors[f"{names[0]}weight"].shape[1]
    if found is None or width != features:
        raise UserError(
            f"{path}: {names[0]}weight takes {width} features, the network gives {features}; name the layer of this "
            "network"
        )
    return found


def _is_layer(key: str, tensor: Tensor) -> bool:
    named = key.endswith(tuple(f"{name}.weight" for name in ("fc", "linear", "head", "classifier"))) or key == "weight"
    return named and tensor.ndim == 2 and len(tensor) in (IMAGENET_CLASSES, IMAGENET9_CLASSES)


def _linear(tensors: Mapping[str, Tensor], prefix: str, classes: int) -> nn.Linear | None:
    """The linear layer of so many classes under a prefix, if there is one."""
    weight, bias = tensors.get(f"{prefix}weight"), tensors.get(f"{prefix}bias")
    if weight is None or bias is None or weight.ndim != 2 or len(weight) != classes or bias.shape != (classes,):
        return None
    layer = nn.Linear(weight.shape[1], classes)
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer.eval().requires_grad_(False)


def _of_timm(network: nn.Module) -> Preprocessing | None:
    """Crop and interpolation with which timm evaluates a model; None where it is no central crop."""
    from timm.data.config import resolve_data_config

    found: dict[str, Any] = resolve_data_config(model=network)  # type: ignore[no-untyped-call]
    if found["crop_mode"] != "center" or found["interpolation"] not in ("bilinear", "bicubic"):
        return None
    crop = found["input_size"][-1]
    return Preprocessing(resize=math.floor(crop / found["crop_pct"]), crop=crop, interpolation=found["interpolation"])


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file under their dotted paths, e.g. ``state_dict.module.encoder_q.conv1.weight``.

    Raises:
        UserError: the file is missing, damaged, or would run code when read.
    """
    if path.suffix != ".safetensors":
        # DINO's checkpoints hold their command line beside the weights; a Namespace runs no code.
        return _flat(load_safely(path, [argparse.Namespace]))
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; name a file of weights, or a model") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or one_line(error)}; name a file of weights") from error
    except SafetensorError as error:
        raise UserError(f"{path}: {why_unreadable(path, error)}") from error


def fill_from(network: nn.Module, classifier: str | None, state: Mapping[str, Tensor], name: str) -> str:
    """Fill a network with the tensors of its names, behind any prefix; returns the prefix.

    Where a file holds several networks, a method's query, online or teacher network is taken. The classifier is filled
    only if the file has one of the same shape; otherwise its weights become NaN, so that nobody takes it for one.

    Args:
        network: with its classifier at the path `classifier`.
        state: tensors by name.
        name: what errors call the file.

    Raises:
        UserError: no prefix has all of the network's weights in the right shapes.
    """
    wanted = network.state_dict()
    own = {key for key in wanted if classifier is None or not key.startswith(f"{classifier}.")}
    prefix, names = _best(state, sorted(own, key=list(wanted).index), isinstance(network, ResNet), name)
    for key in own:
        source = state.get(prefix + names.get(key, key))
        if source is None:
            continue  # a counter of batches, which converted checkpoints omit
        if source.shape != wanted[key].shape:
            raise UserError(
                f"{name}: {prefix}{names.get(key, key)} has shape {tuple(source.shape)}, the network's {key} "
                f"{tuple(wanted[key].shape)}; name the network that these weights are of"
            )
        wanted[key] = source
    for key in wanted.keys() - own:
        source = state.get(prefix + key)
        fits = source is not None and source.shape == wanted[key].shape
        wanted[key] = source if fits and source is not None else torch.full_like(wanted[key], torch.nan)
    network.load_state_dict(wanted)
    return prefix


def _best(state: Mapping[str, Tensor], keys: list[str], resnet: bool, name: str) -> tuple[str, dict[str, str]]:
    """The prefix, and the names of a ResNet's children if it numbers them, with the fewest missing tensors."""
    namings: list[dict[str, str]] = [{}]
    if resnet:
        namings.append({key: _numbered(key) for key in keys})
    found: list[tuple[int, bool, int, str, int, str]] = []
    for number, names in enumerate(namings):
        anchor = names.get(keys[0], keys[0])
        for prefix in sorted(key.removesuffix(anchor) for key in state if key.endswith(anchor)):
            if prefix and not prefix.endswith("."):
                continue
            missing = [key for key in keys if prefix + names.get(key, key) not in state]
            missing = [key for key in missing if not key.endswith("num_batches_tracked")]
            passed_over = any(word in prefix for word in _PASSED_OVER)
            found.append((len(missing), passed_over, len(prefix), prefix, number, missing[0] if missing else ""))
    if not found:
        some = ", ".join(list(state)[:3]) or "no tensors"
        raise UserError(f"{name}: none of its weights is called {keys[0]}, as the network's are; it has {some}, ...")
    missed, _, _, prefix, number, first = min(found)
    if missed:
        raise UserError(
            f"{name}: {missed} of the network's {len(keys)} weights are missing, the first is {prefix}{first}; "
            "name the network that these weights are of"
        )
    return prefix, namings[number]


def _numbered(key: str) -> str:
    return next((number + key.removeprefix(child) for child, number in _NUMBERED.items() if key.startswith(child)), key)


def _own(name: str, size: int, published: bool) -> tuple[nn.Module, str | None, tuple[Any, ...]]:
    network = own_or_torchvision(Encoder(name=name), size)
    if network is None:
        raise UserError(f"{name}: no such model in torchvision; for one of timm write timm:{name}")
    if published:
        if name not in models.list_models(module=models):
            raise UserError(f"{name}: has no published weights; name a file of weights: {name}=FILE")
        network = _downloaded(lambda: models.get_model(name, weights="IMAGENET1K_V1"), name)
    return network, last_linear(network, name), (IMAGENET_MEAN, IMAGENET_STD)


def _timm(name: str, published: bool) -> tuple[nn.Module, str | None, tuple[Any, ...]]:
    """timm's model with its classifier, and the means and deviations that it was trained with."""
    timm = timm_library(name)

    def make(**options: Any) -> nn.Module:
        model: nn.Module = timm.create_model(name.removeprefix("timm:"), pretrained=published, **options)
        return model

    def any_size() -> nn.Module:
        try:
            return make(dynamic_img_size=True)
        except TypeError:  # only transformers have this option
            return make()

    network: Any = _downloaded(any_size, name) if published else any_size()
    layer = network.get_classifier()
    path = next((path for path, module in network.named_modules() if module is layer), None)
    config = network.pretrained_cfg
    return network, path if isinstance(layer, nn.Linear) else None, (config["mean"], config["std"])


def _downloaded(make: Any, name: str) -> nn.Module:
    try:
        network: nn.Module = make()
    except Exception as error:  # each hub has its own errors where there is no connection
        reason = one_line(error)[:120]
        if name.startswith(("timm:hf-hub:", "timm:local-dir:")):
            id_or_folder = name.partition(":")[2].partition(":")[2]
            raise UserError(
                f"hf:{id_or_folder}: cannot be loaded ({reason}); name a folder with timm's config.json and "
                "weights, or timm:NAME=FILE"
            ) from error
        raise UserError(
            f"{name}: its published weights cannot be downloaded ({reason}); name a file of weights: {name}=FILE"
        ) from error
    return network


def _is_classifier(layer: nn.Linear) -> bool:
    return layer.out_features == IMAGENET_CLASSES and not bool(layer.weight.isnan().any())


def _flat(tree: Any, path: str = "") -> dict[str, Tensor]:
    if isinstance(tree, Tensor):
        return {path: tree}
    if not isinstance(tree, Mapping):
        return {}
    found: dict[str, Tensor] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{path}.{key}" if path else str(key))
    return found
