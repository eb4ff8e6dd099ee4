"""A batch of views, and its way from a loader process to the one that trains."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bgsweep.data.shared_buffers import claim_slot
from bgsweep.errors import UserError


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


def joined(parts: Iterator[Batch | UserError], count: int) -> Iterator[Batch | UserError]:
    """The batches that so many parts in a row make up each; the parts' views lie in the same memory."""
    if count == 1:
        yield from parts
        return
    while found := list(islice(parts, count)):
        errors = [part for part in found if isinstance(part, UserError)]
        yield errors[0] if errors else _whole([part for part in found if isinstance(part, Batch)])


def _whole(parts: Sequence[Batch]) -> Batch:
    counts = Counter[str]()
    for part in parts:
        counts.update(part.counts)  # a sum of counters would leave out zeros
    begins = list(accumulate((len(part.labels) for part in parts), initial=0))
    swaps = [part.swaps for part in parts if part.swaps is not None]
    swapped = [part.swapped + begin for part, begin in zip(parts, begins, strict=False) if part.swapped is not None]
    drawn = [part.photometry for part in parts if part.photometry is not None]
    return Batch(
        views=parts[-1].views,
        labels=torch.cat([part.labels for part in parts]),
        indices=torch.cat([part.indices for part in parts]),
        counts=dict(counts),
        swaps=torch.cat(swaps) if swaps else None,
        swapped=torch.cat(swapped) if swapped else None,
        photometry=[torch.cat(column) for column in zip(*drawn, strict=True)] if drawn else None,
        warnings=tuple(line for part in parts for line in part.warnings),
    )


def pinned_ahead(batches: Iterator[Batch | UserError]) -> Iterator[Batch | UserError]:
    """The batches in pinned memory, each copied there while the one before it is in training."""

    def following() -> Batch | UserError | None:
        batch = next(batches, None)
        return batch.pin_memory() if isinstance(batch, Batch) else batch

    with ThreadPoolExecutor(1, "pins") as thread:
        upcoming = thread.submit(following)
        while (batch := upcoming.result()) is not None:
            upcoming = thread.submit(following)
            yield batch


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
