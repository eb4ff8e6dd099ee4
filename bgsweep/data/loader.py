"""The loader: the batches of a run, made ahead by processes that it keeps."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, product
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from typing import Protocol

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config import Data
from bgsweep.data.batch import Batch, SharedBatch, joined, pinned_ahead
from bgsweep.data.batch_maker import BatchIndex, BatchMaker, Task, init_worker, made_for_another
from bgsweep.data.cores import own_share, usable_cores
from bgsweep.data.order import DONOR_BLOCK
from bgsweep.data.sample import ImageDataset
from bgsweep.data.shared_buffers import SharedBuffers, map_slot, parts_within
from bgsweep.data.shared_views import SharedViews
from bgsweep.errors import UserError, warn_once


class BatchFeed(Protocol):
    """A source of batches outside of this process, such as actors on other machines; keeps the order of `indices`."""

    def __call__(
        self, maker: BatchMaker, indices: Iterable[BatchIndex], pin_memory: bool
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

    def __init__(self, maker: BatchMaker, ring: SharedBuffers | None, parts: int) -> None:
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
