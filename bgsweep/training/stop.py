"""The agreement of several workers on the step at which they stop."""

from typing import Any

import torch
import torch.distributed as dist

from bgsweep.stopping import Asked, Request, nothing_asked


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
