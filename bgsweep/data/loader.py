"""From a source to batches of views, the same ones whatever processes make them."""

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from bgsweep.augment.color import ROW
from bgsweep.augment.pipeline import ViewPipeline, ViewResult
from bgsweep.config import Data
from bgsweep.data.cores import usable_cores
from bgsweep.data.memory import keep_freed_memory
from bgsweep.data.order import epoch_order
from bgsweep.data.sample import Image, ImageDataset
from bgsweep.data.shared_buffers import SharedBuffers, arrived, pictures_at
from bgsweep.data.view_builder import ImageViews, ViewBuilder
from bgsweep.errors import UserError

BatchIndex = tuple[int, int]
Task = tuple[BatchIndex, str | None]


@dataclass(frozen=True)
class Batch:
    """One worker's share of a step.

    Attributes:
        views: uint8, batch x height x width x RGB; large crops first.
        labels: int64, as in `Sample`.
        indices: int64, where in the source each photograph stands.
        counts: `views`, and how many of them were `removed`, `replaced`, `kept_small`, `kept_large` by the background
            augmentations, or `none` of these; `unreadable`, photographs that the next readable one stands in for
            because they, their mask or a donor could not be read; with BG_Swaps, `swaps`, and `swaps_kept`, images for
            which it was drawn, but one of whose large views has a foreground out of bounds.
        swaps: BG_Swaps' negatives, like a view, on the background of the first view of some photographs; None without
            that augmentation.
        swapped: int64, which photographs of the batch they belong to.
        photometry: with `views.photometric: device`, what is to be done to the colours of each view and, behind those,
            of the swaps: `Photometry.row` of each (batch x 11). None where it has been done.
    """

    views: list[Tensor]
    labels: Tensor
    indices: Tensor
    counts: dict[str, int]
    swaps: Tensor | None = None
    swapped: Tensor | None = None
    photometry: list[Tensor] | None = None

    def pin_memory(self) -> "Batch":
        """Called by torch's DataLoader."""
        pinned: dict[str, Any] = {"views": [view.pin_memory() for view in self.views]}
        for name in ("labels", "indices", "swaps", "swapped"):
            tensor = getattr(self, name)
            pinned[name] = None if tensor is None else tensor.pin_memory()
        return replace(self, **pinned)


class BatchFeed(Protocol):
    """Who makes batches elsewhere, in the places' order: another machine's processes, for instance."""

    def __call__(
        self, maker: "BatchMaker", places: Sequence[BatchIndex], pin_memory: bool
    ) -> Iterator["Batch | UserError"]: ...


FeedFor = Callable[[Data], BatchFeed | None]
"""Gives the `BatchFeed` that the configuration asks for; None where this process and its own loader make batches."""


class Batches:
    """The batches that one worker of a run sees, epoch by epoch.

    What a batch holds depends on the seed, the epoch and the step alone. With several workers each takes a contiguous
    slice of the same global batch; photographs left over at an epoch's end are dropped.

    Args:
        source: the photographs.
        pipeline: makes the views.
        batch_size: photographs in a step, over all workers; a multiple of `world_size`.
        seed: of order, crops and colours.
        rank: which worker this is.
        world_size: how many there are.
        workers: processes that make batches ahead, kept over all epochs; 0 makes them here, None fits the machine. Each
            imports the main script again, which must therefore guard what it runs by ``if __name__ == "__main__"``.
        pin_memory: put batches where a GPU can fetch them from; costs a CUDA context.
        feed: makes the batches in place of `workers`.

    Raises:
        UserError: the source does not fill one batch.
    """

    def __init__(
        self,
        source: ImageDataset,
        pipeline: ViewPipeline,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int | None = 0,
        pin_memory: bool = False,
        feed: BatchFeed | None = None,
    ) -> None:
        check_batch(source, batch_size)
        self.steps_per_epoch = len(source) // batch_size
        self._feed, self._pin_memory = feed, pin_memory
        self._workers = 0 if feed else default_loader_workers() if workers is None else workers
        share = batch_size // world_size
        self._maker = BatchMaker(source, pipeline, share, batch_size, rank, seed)
        shares_memory = self._workers > 0 and hasattr(os, "memfd_create")
        self._places = _BatchIndices(SharedBuffers(pipeline.sizes, share) if shares_memory else None)
        self._loader = DataLoader(
            _Process(self._maker),
            batch_size=None,
            sampler=self._places,
            num_workers=self._workers,
            worker_init_fn=begin,
            # Forking this process would copy threads' locks (torch, Ray, CUDA) in whatever state they are; the fork
            # server is a clean process that has torch imported once and shares its pages with all workers.
            multiprocessing_context=_fork_server() if self._workers else None,
            # Batches come in order: where few processes make them, a slow one would leave the others idle.
            prefetch_factor=max(2, min(4, 8 // self._workers)) if self._workers else None,
            persistent_workers=self._workers > 0,
            pin_memory=pin_memory,
            # Its own generator: the loader draws a seed each epoch, which would move the training's random numbers.
            generator=torch.Generator(),
        )

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from a step on.

        Raises:
            UserError: a mask has another size than its image, or hardly any image can be read.
        """
        places = [(epoch, step) for step in range(start_step, self.steps_per_epoch)]
        for made in self._made(places):
            if isinstance(made, UserError):
                raise made
            yield made

    def _made(self, places: list[BatchIndex]) -> Iterator[Batch | UserError]:
        if self._feed is not None:
            return self._feed(self._maker, places, self._pin_memory)
        self._places.now = places
        return iter(self._loader)


def check_batch(source: ImageDataset, batch_size: int) -> None:
    """Raise UserError where a source does not fill one batch."""
    if len(source) < batch_size:
        raise UserError(
            f"training.batch_size: one batch of {batch_size} is more than the {len(source)} images of {source.name}; "
            f"lower it, such as to {1 << len(source).bit_length() - 1}"
        )


def default_loader_workers() -> int:
    """As many processes as this worker has cores to itself besides the one that trains, at most 16."""
    # torchrun and Ray Train say in this variable how many workers share the machine.
    return max(0, min(16, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1))


class _BatchIndices(Sampler[Task]):
    """Tells the persistent loader which steps of which epoch come next, and where each batch is to be put."""

    def __init__(self, ring: SharedBuffers | None) -> None:
        self.now: list[BatchIndex] = []
        self._ring = ring

    def __iter__(self) -> Iterator[Task]:
        return ((place, self._ring.take() if self._ring else None) for place in self.now)

    def __len__(self) -> int:
        return len(self.now)


@dataclass
class BatchMaker(Dataset[Batch | UserError]):
    """Makes whole batches by (epoch, step), in this process or, pickled, in another.

    A `UserError` is handed over like a batch: raised in a loader process, it would arrive wrapped in a traceback.
    """

    source: ImageDataset
    pipeline: ViewPipeline
    share: int
    batch_size: int
    rank: int
    seed: int

    def __getitem__(self, place: BatchIndex) -> Batch | UserError:
        return self.made(place, [np.empty((self.share, size, size, 3), np.uint8) for size in self.pipeline.sizes])

    def made(self, place: BatchIndex, pictures: list[Image]) -> Batch | UserError:
        """The batch, its views in `pictures`."""
        try:
            return self._batch(*place, pictures)
        except UserError as error:
            return error

    def _batch(self, epoch: int, step: int, pictures: list[Image]) -> Batch:
        order = _order(self.seed, epoch, len(self.source))
        first = step * self.batch_size + self.rank * self.share
        rows = ViewBuilder(self.source, self.pipeline, self.seed, epoch, order).of(
            range(first, first + self.share), pictures
        )
        counts = Counter[str](result.applied for row in rows for result in row.views)
        counts["views"] = sum(len(row.views) for row in rows)
        counts["unreadable"] = sum(row.index != int(order[first + number]) for number, row in enumerate(rows))
        columns = list(zip(*(row.views for row in rows), strict=True))
        batch = Batch(
            views=[torch.from_numpy(view) for view in pictures],
            labels=torch.from_numpy(self.source.labels[[row.index for row in rows]]),
            indices=torch.tensor([row.index for row in rows]),
            counts=dict(counts),
            photometry=[_drawn(column) for column in columns] if self.pipeline.on_device else None,
        )
        return _with_swaps(batch, rows) if self.pipeline.swap_share else batch


@dataclass
class _Process(Dataset["Batch | _SharedBatch | UserError"]):
    """What torch's loader asks for batches, in this process or in one of its own."""

    maker: BatchMaker

    def __getitem__(self, task: Task) -> "Batch | _SharedBatch | UserError":
        place, address = task
        if address is None:
            return self.maker[place]
        made = self.maker.made(place, pictures_at(address, self.maker.pipeline.sizes, self.maker.share))
        return made if isinstance(made, UserError) else _SharedBatch(made, address)


@dataclass
class _SharedBatch:
    """A batch on its way to the process that trains, where it arrives as a `Batch`: its views are there already."""

    batch: Batch
    address: str

    def __reduce__(self) -> tuple[Any, ...]:
        # As arrays: each tensor would travel in a file of its own.
        rest = {name: _as_arrays(value) for name, value in vars(self.batch).items() if name != "views"}
        return _unpacked, (self.address, rest)


def _as_arrays(value: Any) -> Any:
    if isinstance(value, list):
        return [part.numpy() for part in value]
    return value.numpy() if isinstance(value, Tensor) else value


def _as_tensors(value: Any) -> Any:
    if isinstance(value, list):
        return [torch.from_numpy(part) for part in value]
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _unpacked(address: str, rest: dict[str, Any]) -> Batch:
    fields = {name: _as_tensors(value) for name, value in rest.items()}
    return Batch(views=[torch.from_numpy(view) for view in arrived(address)], **fields)


def _with_swaps(batch: Batch, rows: list[ImageViews]) -> Batch:
    made = {place: row.swap for place, row in enumerate(rows) if row.swap is not None}
    pictures = batch.views[0].new_empty(len(made), *batch.views[0].shape[1:])
    for number, swap in enumerate(made.values()):
        pictures[number] = torch.from_numpy(swap.image)
    counts = batch.counts | {"swaps": len(made), "swaps_kept": sum(row.swap_kept for row in rows)}
    drawn = None if batch.photometry is None else [*batch.photometry, _drawn(made.values())]
    swapped = torch.tensor(list(made), dtype=torch.int64)
    return replace(batch, swaps=pictures, swapped=swapped, counts=counts, photometry=drawn)


def _drawn(views: Iterable[ViewResult]) -> Tensor:
    rows = [view.photometry.row() for view in views if view.photometry is not None]
    return torch.from_numpy(np.array(rows, np.float32)).view(-1, ROW)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, length: int) -> npt.NDArray[np.int64]:
    return epoch_order(seed, epoch, length)


def _fork_server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    # The server would look for this package in the working directory first, and find a folder of its name there, such
    # as that of a clone; what is not found without it is imported by the workers, which have this process's path.
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONSAFEPATH")
        if before is not None:
            os.environ["PYTHONSAFEPATH"] = before
    return context


def begin(worker: int = 0) -> None:
    """Prepare a process for making batches on one core."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    keep_freed_memory()
