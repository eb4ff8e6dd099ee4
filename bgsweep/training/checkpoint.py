"""Checkpoints: written whole or not at all, read without executing anything, and loaded as encoders.

`bgsweep.storage.layout` says where they are.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bgsweep.config import Experiment
from bgsweep.errors import UserError, one_line
from bgsweep.models import ImageEncoder
from bgsweep.models.safe_load import load_safely
from bgsweep.storage.atomic import replacing
from bgsweep.storage.layout import CHECKPOINT_FILE, checkpoint_file
from bgsweep.storage.uri import Uri, downloaded
from bgsweep.training.build import initial_method


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint's file; a kill in the middle leaves the old file."""
    with replacing(path) as partial, partial.open("wb") as file:
        torch.save(state, file)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read tensors and plain values onto the CPU.

    Raises:
        UserError: the file is missing, is not a checkpoint, or would run code when read.
    """
    if not path.exists():
        raise UserError(f"{path}: no such checkpoint; name its file, or the folder that holds it")
    state: dict[str, Any] = load_safely(path)
    if not isinstance(state, dict) or "experiment" not in state:
        raise UserError(
            f"{path}: not a checkpoint of bgsweep; weights of another program are named with their network: "
            f"resnet50={path}"
        )
    return state


def position_in(folder: Path) -> tuple[int, int]:
    """The epochs and further steps that the checkpoint in a folder has trained."""
    state = load_safely(folder / CHECKPOINT_FILE, mapped=True)
    return state["epoch"], state.get("step", 0)


@dataclass(frozen=True)
class TrainedEncoder:
    """An encoder with the experiment that it came from, and the last values that its training reported."""

    experiment: Experiment
    encoder: ImageEncoder
    metrics: dict[str, float]


def load_trained(checkpoint: Uri) -> TrainedEncoder:
    """Load a checkpoint's encoder, in eval mode on the CPU; ``checkpoint`` is its file or folder, or a URI.

    Raises:
        UserError: there is none, or another version of bgsweep wrote it that this one cannot read.
    """
    with downloaded(checkpoint) as path:
        state = load_checkpoint(checkpoint_file(path))
    try:
        experiment = Experiment.model_validate(state["experiment"])
        method = initial_method(experiment, state["classes"], random=True)
        method.load_state_dict(state["method"])
    except (LookupError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise UserError(
            f"{checkpoint}: not a checkpoint of this bgsweep ({one_line(error)}); train it again"
        ) from error
    return TrainedEncoder(experiment, frozen(method.encoder), state.get("metrics", {}))


def untrained(experiment: Experiment) -> TrainedEncoder:
    """The encoder that an experiment starts from: a random one, unless it has `encoder.weights`."""
    return TrainedEncoder(experiment, frozen(initial_method(experiment, classes=1).encoder), {})


def frozen(encoder: ImageEncoder) -> ImageEncoder:
    """The encoder itself, in eval mode and without gradients."""
    return encoder.eval().requires_grad_(False)
