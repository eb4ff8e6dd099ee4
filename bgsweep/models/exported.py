"""Encoders in folders that `bgsweep export` wrote."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bgsweep.config import Encoder
from bgsweep.errors import UserError, one_line
from bgsweep.models.counterparts import timm_key
from bgsweep.models.encoders import ImageEncoder, build_encoder
from bgsweep.models.pretrained import read_tensors

ABOUT = "encoder.json"
"""The description that each of these folders has."""


@dataclass(frozen=True)
class Exported:
    """An encoder in eval mode on the CPU, its network's configuration, and the folder's description."""

    encoder: ImageEncoder
    config: Encoder
    about: dict[str, Any]


def is_export(path: Path) -> bool:
    """True for a folder with a description of an encoder."""
    return (path / ABOUT).is_file()


def load_exported(folder: Path) -> Exported:
    """Load the encoder of a folder of any format but ONNX.

    Raises:
        UserError: the folder is damaged, or its format cannot be read.
    """
    try:
        about = json.loads((folder / ABOUT).read_bytes())
        config, given = Encoder.model_validate(about["encoder"]), about["preprocessing"]
        encoder = build_encoder(config, [int(given["size"])])
        tensors = read_tensors(_weights(folder))
        own = {f"backbone.{key}": tensors.get(key, tensors.get(timm_key(key))) for key in encoder.backbone.state_dict()}
        statistics = {key: torch.tensor(given[key]).view_as(getattr(encoder, key)) for key in ("mean", "std")}
        state: dict[str, Tensor | None] = dict(tensors) if "mean" in tensors else {**own, **statistics}
        encoder.load_state_dict({key: value for key, value in state.items() if value is not None})
    except (OSError, LookupError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"{folder}: not a folder that `bgsweep export` wrote, or damaged ({one_line(error)[:200]}); export again"
        ) from error
    return Exported(encoder.eval().requires_grad_(False), config, about)


def _weights(folder: Path) -> Path:
    """The file of a folder's weights."""
    if (folder / "encoder.onnx").exists():
        raise UserError(
            f"{folder}: ONNX cannot be loaded as a torch module; use `bgsweep export --to safetensors` with what it "
            "was made from"
        )
    found = [*folder.glob("*.safetensors"), *folder.glob("*.pth")]
    if len(found) != 1:
        raise UserError(f"{folder}: {len(found)} files of weights beside {ABOUT}, not one; export again")
    return found[0]
