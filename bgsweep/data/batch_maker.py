"""Batches by their number: the same views, whatever process makes them."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from bgsweep.augment.color import ROW
from bgsweep.augment.pipeline import ViewPipeline, ViewResult
from bgsweep.data.batch import Batch
from bgsweep.data.memory import keep_freed_memory
from bgsweep.data.order import Order, OrderWindow, epoch_order, order_window
from bgsweep.data.sample import Image, ImageDataset
from bgsweep.data.shared_views import SharedViews
from bgsweep.data.view_builder import ImageViews, ViewBuilder
from bgsweep.errors import UserError, collected_warnings

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
