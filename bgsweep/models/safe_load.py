"""Loading of files of tensors without executing code from them."""

import pickle
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bgsweep.errors import UserError, one_line

_TENSORS_ONLY = (
    "import torch; keep = lambda tree: {{k: keep(v) if isinstance(v, dict) else v for k, v in tree.items() "
    "if isinstance(v, (dict, torch.Tensor))}}; "
    "torch.save(keep(torch.load({source!r}, 'cpu', weights_only=False)), {target!r})"
)
_HTML = re.compile(rb"\s*<(!doctype|html|head|\?xml)", re.I)
_LFS = b"version https://git-lfs"


def load_safely(path: Path, allowed: Sequence[type] = (), mapped: bool = False) -> Any:
    """The content of a file that `torch.save` wrote, on the CPU.

    Args:
        allowed: classes that may be instantiated besides tensors and plain values.
        mapped: read tensors only when they are used, for a look at the plain values.

    Raises:
        UserError: the file is missing, has another format, or would run code when read.
    """
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: no such file; name a checkpoint, such as bgsweep_runs/pretrain/DIGEST/state.pt"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or one_line(error)}; name a checkpoint's file") from error
    except Exception as error:  # torch has several, and passes on those of zipfile and struct
        raise UserError(f"{path}: {why_unreadable(path, error)}") from error


def why_unreadable(path: Path, error: Exception) -> str:
    """The reason why a file of weights could not be read, and how to fix it, for an error message."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "the file is empty; fetch it again"
    if start.startswith(_LFS):
        return "a pointer of Git LFS, not the file itself; fetch that by `git lfs pull`"
    if _HTML.match(start):
        return "a web page, not weights; download the file itself (of GitHub its `raw` address)"
    named = re.search(r"(?:Unsupported (?:global|class)[: ]+GLOBAL |Unsupported class )([\w.]+)", str(error))
    if named and isinstance(error, pickle.UnpicklingError):
        target = str(path.with_name(f"{path.stem}.tensors.pt"))
        command = shlex.quote(_TENSORS_ONLY.format(source=str(path), target=target))
        return (
            f"holds objects of {named[1]}, and making such objects can run code; if you trust its origin, save the "
            f"tensors alone by `python -c {command}`"
        )
    return "not weights that can be read safely; the file is damaged, or something else under that name; fetch it again"
