"""Checkpoints as files: written whole or not at all, read without executing anything."""

import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from bgsweep.errors import UserError
from bgsweep.models.safe_load import load_safely


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write beside the target, reach the disk, then take its name: a kill leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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
