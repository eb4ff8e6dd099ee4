"""Weights that a run's encoder starts from: of bgsweep's own encoders, published networks, or other programs' files."""

import argparse
import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bgsweep.config import Encoder, Experiment
from bgsweep.errors import UserError, one_line
from bgsweep.models import build_encoder
from bgsweep.models.exported import is_export, load_exported
from bgsweep.models.pretrained import fill_from, load_pretrained, read_tensors
from bgsweep.models.safe_load import load_safely
from bgsweep.models.vit import resized_positions
from bgsweep.storage.atomic import replacing, write_whole
from bgsweep.storage.hashing import Digest
from bgsweep.storage.layout import checkpoint_file
from bgsweep.storage.uri import Uri, downloaded, filesystem, is_remote, list_remote

MLFLOW = ("models:/", "runs:/", "mlflow-artifacts:/")
"""Beginnings of MLflow's URIs."""

TENSORS, _ABOUT = "encoder.safetensors", "encoder.json"
_OTHER_NETWORK = "name the network that these weights are of"
State = Mapping[str, Tensor]


def initial_weights(experiment: Experiment) -> dict[str, Tensor]:
    """The state of an `ImageEncoder` from the experiment's `encoder.weights`.

    Raises:
        UserError: there are no such weights, or they do not fit the experiment's encoder; in one line.
    """
    name = experiment.encoder.weights or ""
    if name.startswith(MLFLOW):
        raise UserError(
            f"encoder.weights: {name}: only `bgsweep pretrain` and `bgsweep sweep` read MLflow's models; name a "
            "checkpoint, or a folder of weights that one of them wrote into its store"
        )
    if name.startswith(("torchvision:", "timm:")):
        _compare(Encoder(name=name.removeprefix("torchvision:")), experiment)
        # A model of timm with a fixed size has that of the views, or does not fit; torchvision's ViTs take 224 px only.
        size = experiment.views.size if name.startswith("timm:") else 224
        return fitted(_prefixed(lambda: load_pretrained(name, size)).encoder.state_dict(), experiment)
    with contextlib.ExitStack() as opened:
        path = _prefixed(lambda: opened.enter_context(downloaded(name)))
        return _from_path(path.expanduser(), experiment)


def fitted(state: State, experiment: Experiment, theirs: Encoder | None = None) -> dict[str, Tensor]:
    """A state in float32, which the experiment's encoder can load.

    Args:
        theirs: the network that the weights are of, where that is known.

    Raises:
        UserError: the encoder is another one, or has other tensors.
    """
    if theirs is not None:
        _compare(theirs, experiment)
    name, own = experiment.encoder.weights, build_encoder(experiment.encoder, experiment.views.sizes).state_dict()
    if differing := sorted(own.keys() ^ state.keys()):
        where = "lack" if differing[0] in own else "have"
        raise UserError(
            f"encoder.weights: {name}: not of encoder.name: {experiment.encoder.name}; they {where} {differing[0]}"
        )
    found = {}
    for key, wanted in own.items():
        tensor = state[key]
        if key.endswith("pos_embedding") and tensor.shape != wanted.shape:
            tensor = resized_positions(tensor, wanted.shape[1])
        if tensor.shape != wanted.shape:
            raise UserError(
                f"encoder.weights: {name}: {key} has shape {tuple(tensor.shape)}, that of {_said(experiment.encoder)} "
                f"for views of {experiment.views.size} px {tuple(wanted.shape)}; change encoder or views.size"
            )
        found[key] = tensor.to(wanted.dtype).contiguous()
    return found


def state_digest(state: State) -> str:
    """SHA-256 of all tensors with their names and shapes, first 16 hex digits."""
    total = Digest()
    for key in sorted(state):
        content = state[key].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        total.add(f"{key} {tuple(state[key].shape)} {state[key].dtype}", content)
    return total.value()


def write_weights(folder: Path, state: State, about: Mapping[str, Any]) -> None:
    """Write a folder that `initial_weights` reads, each of its files whole or not at all."""
    write_whole(folder / _ABOUT, json.dumps(about, indent=1).encode() + b"\n")
    with replacing(folder / TENSORS) as partial:
        save_file(dict(state), partial)


def has_weights(folder: Uri) -> bool:
    """True if `write_weights` has written this folder, or one that was then uploaded to this URI, `TENSORS` last."""
    if not is_remote(folder):
        return Path(folder, TENSORS).is_file()
    return TENSORS in {entry.name for entry in list_remote(folder, *filesystem(folder), recursive=False)}


def origin_of(folder: Uri) -> dict[str, Any]:
    """The ``source``, ``digest`` and ``encoder`` of kept weights."""
    with downloaded(folder) as path:
        return dict(json.loads((path / _ABOUT).read_bytes()))


def _from_path(path: Path, experiment: Experiment) -> dict[str, Tensor]:
    name = experiment.encoder.weights
    if not path.exists():
        raise UserError(
            f"encoder.weights: {name}: no such file or folder; name a checkpoint, a file of weights, "
            "models:/NAME@ALIAS, torchvision:NAME or timm:NAME"
        )
    if path.is_dir() and has_weights(path):
        return _from_folder(path, experiment)
    if is_export(path):
        found = _prefixed(lambda: load_exported(path))
        return fitted(found.encoder.state_dict(), experiment, found.config)
    path = checkpoint_file(path)
    if path.is_dir() or not path.exists():
        raise UserError(f"encoder.weights: {name}: no checkpoint in this folder; name the file of the weights")
    if path.suffix != ".safetensors":
        content = _prefixed(lambda: load_safely(path, [argparse.Namespace]))
        if isinstance(content, dict) and isinstance(content.get("experiment"), dict):
            return _from_checkpoint(content, experiment)
    tensors = _prefixed(lambda: read_tensors(path))
    encoder = build_encoder(experiment.encoder, experiment.views.sizes)
    try:
        fill_from(encoder.backbone, None, tensors, str(name))
    except UserError as error:
        reason = str(error).removesuffix(f"; {_OTHER_NETWORK}")
        raise UserError(
            f"encoder.weights: {reason}; set encoder, which is {_said(experiment.encoder)}, to the network of these"
        ) from error
    return fitted(encoder.state_dict(), experiment)


def _prefixed(read: Callable[[], Any]) -> Any:
    """The result of a function that reads weights; its errors name the key."""
    try:
        return read()
    except UserError as error:
        raise UserError(f"encoder.weights: {error}") from error


def _from_checkpoint(content: dict[str, Any], experiment: Experiment) -> dict[str, Tensor]:
    try:
        theirs = Encoder.model_validate(content["experiment"]["encoder"])
        prefix = "encoder."
        state = {key.removeprefix(prefix): value for key, value in content["method"].items() if key.startswith(prefix)}
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        name = experiment.encoder.weights
        raise UserError(
            f"encoder.weights: {name}: not a checkpoint of this bgsweep ({one_line(error)}); train it again"
        ) from error
    return fitted(state, experiment, theirs)


def _from_folder(folder: Path, experiment: Experiment) -> dict[str, Tensor]:
    """Of a folder that `write_weights` wrote, or of a downloaded model of MLflow, which has the same two files."""
    name = experiment.encoder.weights
    try:
        theirs = Encoder.model_validate(json.loads((folder / _ABOUT).read_bytes())["encoder"])
        state = load_file(folder / TENSORS)
    except (OSError, LookupError, ValueError, TypeError, SafetensorError) as error:
        raise UserError(
            f"encoder.weights: {name}: {_ABOUT} or {TENSORS} is damaged ({one_line(error)}); name the weights' origin"
        ) from error
    return fitted(state, experiment, theirs)


def _compare(theirs: Encoder, experiment: Experiment) -> None:
    """Require the experiment's encoder to be the network that the weights are of."""
    # timm names the weights of a network behind a dot.
    ours, found = (
        {"name": each.name.partition(".")[0], "width": each.width, "stem": each.stem}
        for each in (experiment.encoder, theirs)
    )
    differing = [f"encoder.{key}={found[key]}" for key in found if found[key] != ours[key]]
    if differing:
        raise UserError(
            f"encoder.weights: {experiment.encoder.weights} is of {_said(theirs)}, encoder is "
            f"{_said(experiment.encoder)}; set {' '.join(differing)}"
        )


def _said(encoder: Encoder) -> str:
    width = "" if encoder.width == 64 else f", width: {encoder.width}"
    stem = "" if encoder.stem == "imagenet" else f", stem: {encoder.stem}"
    return f"{{name: {encoder.name}{width}{stem}}}"
