"""Requests to stop in the middle of an epoch, and the agreement of several workers on the step at which they do."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from enum import IntEnum
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist


class Request(IntEnum):
    """Request to a run, carried out after its present step; of several requests the largest number counts."""

    NOTHING = 0
    CHECKPOINT = 1  # write a checkpoint and go on, since the node may be taken away
    LEAVE = 2  # write a checkpoint and end


Asked = Callable[[], Request]


def nothing_asked() -> Request:
    """The answer where nobody can ask a run to stop."""
    return Request.NOTHING


class StopAgreement:
    """Asks after each step, on every worker, for the same answer on all of them.

    A worker that left alone would leave the others waiting in their next collective. The answers are combined in a
    process group of their own on the CPU, whose all-reduce of one number begins after a step and is waited for after
    the next one: no GPU is waited for, and all workers stop at the same step, at most two after the request.

    Args:
        asked: this worker's own request.
        world_size: number of workers; with one there is nothing to agree on.
    """

    def __init__(self, asked: Asked = nothing_asked, world_size: int = 1) -> None:
        self.asked = asked
        self._group: Any = dist.new_group(backend="gloo") if world_size > 1 else None
        self._pending: tuple[Any, torch.Tensor] | None = None

    def after_step(self) -> Request:
        """The request of all workers after the step before; with a single worker, after this one."""
        if self._group is None:
            return self.asked()
        found = self._await()
        if found is Request.NOTHING:
            self._begin()
        return found

    def now(self) -> Request:
        """The request of all workers; waits for the slowest."""
        if self._group is None:
            return self.asked()
        found = self._await()
        self._begin()
        return max(found, self._await())

    def _begin(self) -> None:
        flag = torch.tensor(int(self.asked()))
        work = dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._group, async_op=True)
        self._pending = work, flag

    def _await(self) -> Request:
        if self._pending is None:
            return Request.NOTHING
        (work, flag), self._pending = self._pending, None
        work.wait()
        return Request(int(flag))


@contextlib.contextmanager
def leave_on_sigterm() -> Iterator[Asked]:
    """A context in which the first SIGTERM asks the run to leave; a second one interrupts it at once, like Ctrl-C.

    Outside of the main thread, where Python delivers no signals, nothing changes.
    """
    found = Request.NOTHING

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal found
        if found is Request.LEAVE:
            signal.default_int_handler(number, frame)
        found = Request.LEAVE

    if threading.current_thread() is not threading.main_thread():
        yield nothing_asked
        return
    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield lambda: found
    finally:
        signal.signal(signal.SIGTERM, before)
