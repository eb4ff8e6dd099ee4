"""Features of image sets: computed once, used by every evaluator of a call."""

import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bgsweep.data import Image
from bgsweep.errors import UserError

Encode = Callable[[Tensor], Tensor]
"""From uint8 images (N, H, W, 3) to float32 features (N, D) on the CPU; it puts the encoder into eval mode."""

ImageBatches = Iterable[tuple[Image, npt.NDArray[np.int64]]]
"""Batches of images (N, H, W, 3) with their labels (N,)."""

IN_MEMORY = 1 << 30
"""Bytes of float32 up to which a set's features stay in memory; those of a larger set are float16 in a file."""


@dataclass(frozen=True)
class Features:
    """Features (N, D) of images with labels (N,), int64.

    Attributes:
        stored: float32, or, of large sets, float16 rows in a temporary file that is mapped into memory.
        scales: (N, 1), by which the float16 rows are multiplied, so that features of any size keep 11 bits.
    """

    stored: Tensor
    labels: Tensor
    scales: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def values(self) -> Tensor:
        """All rows, float32, which those of a large set take the memory for."""
        return self.rows(slice(None))

    def __reduce__(self) -> tuple[Any, ...]:
        # As arrays, which Ray's workers on a node map instead of copying them: those of ImageNet take 5 GB.
        return _of_arrays, (
            self.stored.numpy(),
            self.labels.numpy(),
            None if self.scales is None else self.scales.numpy(),
        )

    def rows(self, which: slice | Tensor, device: torch.device | None = None) -> Tensor:
        """Some rows, float32, on a device (None: where they are)."""
        values = self.stored[which].to(device or self.stored.device)
        return values if self.scales is None else values.float().mul_(self.scales[which].to(values.device))

    def part(self, which: Tensor) -> "Features":
        """Some of the images."""
        return Features(self.rows(which), self.labels[which])

    def to(self, device: torch.device) -> "Features":
        """All of them on a device, as precise as they are."""
        scales = None if self.scales is None else self.scales.to(device)
        return Features(self.stored.to(device), self.labels.to(device), scales)

    @property
    def nbytes(self) -> int:
        return self.stored.nbytes


def _of_arrays(*arrays: npt.NDArray[Any] | None) -> Features:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nor are features written
        values, labels, scales = (None if each is None else torch.from_numpy(each) for each in arrays)
    assert values is not None and labels is not None
    return Features(values, labels, scales)


def extract(encode: Encode, batches: ImageBatches, count: int) -> Features:
    """Encode an image set of at most so many images batch by batch."""
    return joined(
        (Features(encode(torch.from_numpy(images)), torch.from_numpy(classes)) for images, classes in batches), count
    )


def joined(parts: Iterable[Features], count: int) -> Features:
    """The features of a set of at most `count` images, from its parts.

    Raises:
        UserError: the folder for temporary files has no room for them.
    """
    every = iter(parts)
    first = next(every)
    size = count * first.values.shape[1]
    if size * first.values.element_size() <= IN_MEMORY:
        found = [first, *every]
        return Features(torch.cat([one.values for one in found]), torch.cat([one.labels for one in found]))
    return _on_disk(chain([first], every), count, first.values.shape[1])


def _on_disk(parts: Iterator[Features], count: int, width: int) -> Features:
    # All in advance: small tensors kept from every part would fragment the heap into gaps too small for the next part.
    values, scales, labels = _temporary(count, width), torch.ones(count, 1), torch.empty(count, dtype=torch.int64)
    done = 0
    for one in parts:
        rows = slice(done, done + len(one))
        scales[rows] = one.values.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        values[rows] = one.values / scales[rows]
        labels[rows] = one.labels
        done += len(one)
    return Features(values[:done], labels[:done], scales[:done])


def _temporary(count: int, width: int) -> Tensor:
    """A float16 tensor in a file without a name, which goes with the process."""
    size = 2 * count * width
    with tempfile.TemporaryFile() as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk would kill the process at a write to the map
        except OSError as error:
            raise UserError(
                f"{tempfile.gettempdir()}: no room for {size / 1e9:.1f} GB of features ({error.strerror}); set TMPDIR "
                "to a folder that has it"
            ) from error
        return torch.from_numpy(np.memmap(file, np.float16, "r+", shape=(count, width)))


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Share of right predictions, 0 to 1."""
    return (predicted == labels).double().mean().item()
