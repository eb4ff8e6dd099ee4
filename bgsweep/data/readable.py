"""Iteration over a dataset that skips unreadable images, and decoding ahead in threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from bgsweep.data.sample import ImageDataset, Sample
from bgsweep.errors import UnreadableImage, warn_once

Item = TypeVar("Item")
Result = TypeVar("Result")


def readable(dataset: ImageDataset, indices: Iterable[int] | None = None) -> Iterator[tuple[int, Sample]]:
    """The images (all, or those at `indices`) that can be read, mask included, with their indices.

    Each unreadable one gives a warning, once in a process.
    """

    def with_mask(sample: Sample) -> Sample:
        _ = sample.mask
        return sample

    return seen(dataset, with_mask, indices)


def seen(
    dataset: ImageDataset,
    see: Callable[[Sample], Result],
    indices: Iterable[int] | None = None,
    threads: int = 0,
    ahead: int = 1,
) -> Iterator[tuple[int, Result]]:
    """As `readable`, with the result of `see` for each image; masks are read only if `see` reads them.

    Args:
        threads, ahead: as of `in_order`.
    """

    def one(index: int) -> tuple[int, Result] | None:
        try:
            return index, see(dataset[index])
        except UnreadableImage as error:
            warn_once(f"{error}; it is left out")
            return None

    found = in_order(one, range(len(dataset)) if indices is None else indices, threads, ahead)
    return (pair for pair in found if pair is not None)


def in_order(task: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int) -> Iterator[Result]:
    """The task's result for each item, in order.

    Threads are enough where the task decodes: libjpeg-turbo and OpenCV run without the interpreter's lock.

    Args:
        threads: threads that work ahead of the caller; 0 runs each task when its result is asked for.
        ahead: number of results made ahead.
    """
    if not threads:
        yield from map(task, items)
        return
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(task, item))
            if len(waiting) > max(ahead, threads):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
