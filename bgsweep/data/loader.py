"""The loader: batches of views of a dataset, identical whatever processes make them."""

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain, product
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from bgsweep.augment.color import ROW
from bgsweep.augment.pipeline import ViewPipeline, ViewResult
from bgsweep.config import Data
from bgsweep.data.batch import Batch, SharedBatch, joined, pinned_ahead
from bgsweep.data.cores import own_share, usable_cores
from bgsweep.data.memory import keep_freed_memory
from bgsweep.data.order import DONOR_BLOCK, Order, OrderWindow, epoch_order, order_window
from bgsweep.data.sample import Image, ImageDataset
from bgsweep.data.shared_buffers import SharedBuffers, map_slot, parts_within
from bgsweep.data.shared_views import SharedViews
from bgsweep.data.view_builder import ImageViews, ViewBuilder
from bgsweep.errors import UserError, collected_warnings, warn_once

BatchIndex = tuple[int, int]


@dataclass(frozen=True)
class Task:
    """A task of a loader process: a batch, or a part of one.

    Attributes:
        index: epoch and step.
        part: the images of it within the worker's share of the batch.
        order: the epoch's order, as far as these need it; all of it is 10 MB for a million images.
        slot: memory for the views of the whole batch, shared with the training process.
    """

    index: BatchIndex
    part: range
    order: OrderWindow
    slot: str | None = None


class BatchFeed(Protocol):
    """A source of batches outside of this process, such as actors on other machines; keeps the order of `indices`."""

    def __call__(
        self, maker: "BatchMaker", indices: Iterable[BatchIndex], pin_memory: bool
    ) -> Iterator["Batch | UserError"]: ...


FeedFor = Callable[[Data], BatchFeed | None]
"""Makes the configured `BatchFeed`; gives None where this process's own loader makes the batches."""


class Batches:
    """The batches of one worker of a run, epoch by epoch.

    A batch depends on the seed, the epoch and the step alone. With several workers each takes a contiguous slice of the
    same global batch; images left over at an epoch's end are dropped.

    Args:
        dataset: the training images.
        pipeline: makes the views.
        batch_size: images in a step, over all workers; a multiple of `world_size`.
        seed: of order, crops and colours.
        rank: index of this worker.
        world_size: number of workers.
        workers: processes that make batches ahead, kept over all epochs; 0 makes them in this process, None takes as
            many as the machine has cores for. Each imports the main script again, which must therefore guard its code
            by ``if __name__ == "__main__"``.
        pin_memory: copy batches to pinned memory, from which a GPU fetches them asynchronously; needs a CUDA context.
        feed: makes the batches instead of `workers`.
        memory_gb: for batches made ahead; None takes a quarter of this process's share of the memory.
        shared: what this trial shares with others; None makes all views here.
        epochs: of the run; the first batches of the next one are made while an epoch ends and is evaluated.

    Raises:
        UserError: the dataset does not fill one batch, or `memory_gb` does not hold what is made ahead at least.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        pipeline: ViewPipeline,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int | None = 0,
        pin_memory: bool = False,
        feed: BatchFeed | None = None,
        memory_gb: float | None = None,
        epochs: int = 0,
        shared: SharedViews | None = None,
    ) -> None:
        check_batch(dataset, batch_size)
        self.steps_per_epoch = len(dataset) // batch_size
        self._feed, self._pin_memory, self._epochs = feed, pin_memory, epochs
        # The batches from some step on to the end of the run, and the step that comes next in them.
        self._made: Iterator[Batch | UserError] = iter(())
        self._next: BatchIndex | None = None
        self._workers = 0 if feed else default_loader_workers() if workers is None else workers
        # Each image is decoded once for all of its views, and whole blocks of images are made together: one task of the
        # loader is a batch, which `batch_size=None` below passes through.
        share = batch_size // world_size
        self._maker = BatchMaker(dataset, pipeline, share, batch_size, rank, seed, None if feed else shared)
        # Batches come in order: with few processes and two tasks each, a slow one would leave the others idle.
        prefetch = max(2, min(4, 8 // self._workers)) if self._workers else None
        ring, parts = None, 1
        if self._workers > 0 and hasattr(os, "memfd_create"):
            ring = SharedBuffers(pipeline.sizes, share)
            parts = parts_within(ring.slot_bytes, share, self._workers * (prefetch or 1), memory_gb)
        self._tasks = _Tasks(self._maker, ring, parts)
        # torch's loader pins what arrives, in any order: a batch of several parts is pinned when all are there.
        self._pins = pin_memory and parts > 1
        self._loader = DataLoader(
            _LoaderDataset(self._maker),
            batch_size=None,
            sampler=self._tasks,
            num_workers=self._workers,
            worker_init_fn=partial(init_worker, environment=dict(os.environ)),
            # Forking this process would copy threads' locks (torch, Ray, CUDA) in whatever state they are; the fork
            # server is a clean process that has torch imported once and shares its pages with all workers.
            multiprocessing_context=_fork_server() if self._workers else None,
            prefetch_factor=prefetch,
            # Kept over epochs: a process imports torch and Albumentations for seconds before its first batch.
            persistent_workers=self._workers > 0,
            pin_memory=pin_memory and not self._pins,
            # Its own generator: the loader draws a seed each epoch, which would move the training's random numbers.
            generator=torch.Generator(),
        )

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from a step on.

        Raises:
            UserError: a mask has another size than its image, or hardly any image can be read.
        """
        for step in range(start_step, self.steps_per_epoch):
            yield self._batch((epoch, step))

    def _batch(self, index: BatchIndex) -> Batch:
        if index != self._next:
            self._made = self._from(index)
        self._next = None  # until it is known that there is one more: what raises must not be asked again
        made = next(self._made)
        if isinstance(made, UserError):
            raise made
        for line in made.warnings:
            warn_once(line)
        epoch, step = index
        if step + 1 < self.steps_per_epoch:
            self._next = epoch, step + 1
        elif epoch + 1 < self._epochs:
            self._next = epoch + 1, 0
        else:
            self._made = iter(())
        return made

    def _from(self, index: BatchIndex) -> Iterator[Batch | UserError]:
        """All batches of the run from an index on."""
        first, step = index
        last = max(first + 1, self._epochs)
        indices = chain(
            ((first, each) for each in range(step, self.steps_per_epoch)),
            product(range(first + 1, last), range(self.steps_per_epoch)),
        )
        if self._feed is not None:
            return self._feed(self._maker, indices, self._pin_memory)
        self._tasks.now = indices
        whole = joined(iter(self._loader), self._tasks.parts)
        return pinned_ahead(whole) if self._pins else whole


def check_batch(source: ImageDataset, batch_size: int) -> None:
    """Raise UserError where a source does not fill one batch."""
    if len(source) < batch_size:
        raise UserError(
            f"training.batch_size: one batch of {batch_size} is more than the {len(source)} images of {source.name}; "
            f"lower it, such as to {1 << len(source).bit_length() - 1}"
        )


def default_loader_workers() -> int:
    """The number of cores of this worker less the one that trains, at most 16."""
    # One core is left to the training process itself, which otherwise waits for the loader's processes.
    return max(0, min(16, int(usable_cores() * own_share() + 1e-6) - 1))


class _Tasks(Sampler[Task]):
    """Gives the persistent loader the parts of the current epoch's batches, each batch with a free slot of memory."""

    def __init__(self, maker: "BatchMaker", ring: SharedBuffers | None, parts: int) -> None:
        self.now: Iterable[BatchIndex] = ()
        self._maker, self._ring = maker, ring
        size = -(-maker.share // (parts * DONOR_BLOCK)) * DONOR_BLOCK
        self._parts = [range(begin, min(begin + size, maker.share)) for begin in range(0, maker.share, size)]

    @property
    def parts(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[Task]:
        for index in self.now:
            slot = self._ring.take() if self._ring else None
            for part in self._parts:
                yield Task(index, part, self._maker.order(index, part), slot)


@dataclass
class BatchMaker(Dataset[Batch | UserError]):
    """Makes whole batches by (epoch, step), in this process or, pickled, in another.

    A `UserError` is returned like a batch: raised in a loader process, it would arrive wrapped in a traceback.
    """

    dataset: ImageDataset
    pipeline: ViewPipeline
    share: int
    batch_size: int
    rank: int
    seed: int
    shared: SharedViews | None = None

    def __getitem__(self, index: BatchIndex) -> Batch | UserError:
        whole = range(self.share)
        buffers = [np.empty((self.share, size, size, 3), np.uint8) for size in self.pipeline.sizes]
        return self.made(Task(index, whole, self.order(index, whole)), buffers)

    def order(self, index: BatchIndex, part: range) -> OrderWindow:
        """The part of the epoch's order that the images of a batch from `part.start` to `part.stop` need."""
        return order_window(_order(self.seed, index[0], len(self.dataset)), self._positions(index, part))

    def made(self, task: Task, buffers: list[Image]) -> Batch | UserError:
        """Part of a batch, with its views in `buffers`."""
        try:
            return self._batch(task, buffers)
        except UserError as error:
            return error

    def _positions(self, index: BatchIndex, part: range) -> range:
        # A contiguous slice for each worker keeps blocks of images, and with them donors, in one process.
        first = index[1] * self.batch_size + self.rank * self.share
        return range(first + part.start, first + part.stop)

    def _batch(self, task: Task, buffers: list[Image]) -> Batch:
        order, positions = task.order, self._positions(task.index, task.part)
        first = positions.start
        builder = ViewBuilder(self.dataset, self.pipeline, self.seed, task.index[0], order, self.shared)
        rows = builder.of(positions, buffers)
        counts = Counter[str](result.applied for row in rows for result in row.views)
        counts["views"] = sum(len(row.views) for row in rows)
        counts["unreadable"] = sum(row.index != order[first + number] for number, row in enumerate(rows))
        columns = list(zip(*(row.views for row in rows), strict=True))
        batch = Batch(
            views=[torch.from_numpy(view) for view in buffers],
            labels=torch.from_numpy(self.dataset.labels[[row.index for row in rows]]),
            indices=torch.tensor([row.index for row in rows]),
            counts=dict(counts),
            photometry=[_photometry_rows(column) for column in columns] if self.pipeline.on_device else None,
        )
        return _with_swaps(batch, rows) if self.pipeline.swap_share else batch


@dataclass
class _LoaderDataset(Dataset["Batch | SharedBatch | UserError"]):
    """The dataset of torch's DataLoader, each item of which is a batch."""

    maker: BatchMaker

    def __getitem__(self, task: Task) -> "Batch | SharedBatch | UserError":
        # In the training process itself there is nothing to share.
        if get_worker_info() is None:
            return self.maker[task.index]
        if task.slot is None:
            return made_for_another(lambda: self.maker[task.index])
        images = map_slot(task.slot, self.maker.pipeline.sizes, self.maker.share)
        own = [view[task.part.start : task.part.stop] for view in images]
        made = made_for_another(lambda: self.maker.made(task, own))
        return made if isinstance(made, UserError) else SharedBatch(made, task.slot)


def made_for_another(make: Callable[[], Batch | UserError]) -> Batch | UserError:
    """A batch for another process, with the warnings of this one."""
    with collected_warnings() as lines:
        made = make()
    return made if isinstance(made, UserError) else replace(made, warnings=tuple(lines))


def _with_swaps(batch: Batch, rows: list[ImageViews]) -> Batch:
    # Only for images for which BG_Swaps was drawn: each negative costs a view (0.6 ms) and a pass through the key
    # encoder.
    made = {index: row.swap for index, row in enumerate(rows) if row.swap is not None}
    buffers = batch.views[0].new_empty(len(made), *batch.views[0].shape[1:])
    for number, swap in enumerate(made.values()):
        buffers[number] = torch.from_numpy(swap.image)
    counts = batch.counts | {"swaps": len(made), "swaps_kept": sum(row.swap_kept for row in rows)}
    drawn = None if batch.photometry is None else [*batch.photometry, _photometry_rows(made.values())]
    swapped = torch.tensor(list(made), dtype=torch.int64)
    return replace(batch, swaps=buffers, swapped=swapped, counts=counts, photometry=drawn)


def _photometry_rows(views: Iterable[ViewResult]) -> Tensor:
    rows = [view.photometry.row() for view in views if view.photometry is not None]
    return torch.from_numpy(np.array(rows, np.float32)).view(-1, ROW)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, length: int) -> Order:
    return epoch_order(seed, epoch, length)


def _fork_server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    # Without PYTHONSAFEPATH the server would look for this package in the working directory first, and find a folder of
    # that name, such as a clone's. Modules that it then cannot find are imported by the workers, which have this
    # process's path.
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONSAFEPATH")
        if before is not None:
            os.environ["PYTHONSAFEPATH"] = before
    return context


def init_worker(worker: int = 0, environment: Mapping[str, str] | None = None) -> None:
    """Set up a process that makes batches on one core; `environment` is that of the process it makes them for."""
    if environment is not None:
        # The fork server has the environment of the first loader of its process, and credentials or the address of an
        # object store may have changed since.
        os.environ.clear()
        os.environ.update(environment)
    # The processes share the cores; threads of OpenCV or torch in each of them would only contend.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    keep_freed_memory()
