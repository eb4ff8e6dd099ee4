"""A batch of views, and its way from a loader process to the one that trains."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bgsweep.data.shared_buffers import claim_slot


@dataclass(frozen=True)
class Batch:
    """One worker's share of a step.

    Attributes:
        views: uint8, batch x height x width x RGB; large crops first.
        labels: int64, as in `Sample`.
        indices: int64, index of each image in the dataset.
        counts: number of `views`, and of those that were `removed`, `replaced`, `kept_small`, `kept_large` by the
            background augmentations, or `none` of these; `unreadable`, images replaced by the next readable one because
            they, their mask or a donor could not be read; with BG_Swaps, `swaps`, and `swaps_kept`, images for which it
            was drawn, but one of whose large views has a foreground out of bounds.
        swaps: BG_Swaps' negatives, like a view, on the background of the first view of some images; None without
            that augmentation.
        swapped: int64, positions in the batch of the images that they belong to.
        photometry: with `views.photometric: device`, the draws for the colours of each view and, behind those, of the
            swaps: `ColorDraw.row` of each (batch x 11). None where they have been applied.
        warnings: of the process that made the batch; `Batches` logs them.
    """

    # Height x width x channels, as decoded: permuted on the device this is already PyTorch's channels_last.
    views: list[Tensor]
    labels: Tensor
    indices: Tensor
    counts: dict[str, int]
    swaps: Tensor | None = None
    swapped: Tensor | None = None
    photometry: list[Tensor] | None = None
    warnings: tuple[str, ...] = ()

    def pin_memory(self) -> "Batch":
        """Called by torch's DataLoader."""
        # From pinned memory a GPU copies a batch while it computes.
        pinned: dict[str, Any] = {"views": [view.pin_memory() for view in self.views]}
        for name in ("labels", "indices", "swaps", "swapped"):
            tensor = getattr(self, name)
            pinned[name] = None if tensor is None else tensor.pin_memory()
        return replace(self, **pinned)


@dataclass
class SharedBatch:
    """A batch on its way to the training process, which unpickles it as a `Batch`: its views are in shared memory."""

    batch: Batch
    slot: str

    def __reduce__(self) -> tuple[Any, ...]:
        # As arrays: torch would send each tensor through a shared-memory file of its own.
        rest = {name: _as_arrays(value) for name, value in vars(self.batch).items() if name != "views"}
        return _receive_batch, (self.slot, rest)


def _as_arrays(value: Any) -> Any:
    if isinstance(value, list):
        return [part.numpy() for part in value]
    return value.numpy() if isinstance(value, Tensor) else value


def _as_tensors(value: Any) -> Any:
    if isinstance(value, list):
        return [torch.from_numpy(part) for part in value]
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _receive_batch(slot: str, rest: dict[str, Any]) -> Batch:
    fields = {name: _as_tensors(value) for name, value in rest.items()}
    return Batch(views=[torch.from_numpy(view) for view in claim_slot(slot)], **fields)
