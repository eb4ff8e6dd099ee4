"""Requests to stop that reach a worker through Ray: its driver's, and the notice that a node will be taken away."""

import threading
from typing import Any

import ray

from bgsweep.distributed.pulse import Pulse
from bgsweep.stopping import Request

_INTERVAL = 1.0  # seconds


class WorkerRequests:
    """Requests to one of Ray Train's workers; called after each step.

    Ray Train's own `get_preemption_info` is a barrier of all workers, through an actor: too slow for each step, so that
    each worker looks at what the controller has told it, and `StopAgreement` does the rest.

    Args:
        stops: a queue that the driver puts something into to let the workers leave; None on all workers but one.
        pulse: what the sweep's driver is told of a trial's progress, and asks for.
    """

    def __init__(self, stops: Any = None, pulse: Pulse | None = None) -> None:
        from ray.train.v2._internal.execution.context import get_train_context

        self._preemption = get_train_context().preemption_context
        self._handled = False
        self._pulse = pulse
        self._leave = threading.Event()
        if stops is not None:
            threading.Thread(target=self._watch, args=(stops,), name="stop-requests", daemon=True).start()

    def __call__(self) -> Request:
        asked = self._pulse() if self._pulse else Request.NOTHING
        if self._leave.is_set():
            return Request.LEAVE
        preempted = not self._handled and self._preemption.preemption_info is not None
        return Request.CHECKPOINT if preempted else asked

    def done(self) -> None:
        """A checkpoint has been written; Ray Train restarts the workers from it once the node is gone."""
        self._handled = self._preemption.preemption_info is not None
        if self._pulse:
            self._pulse.done()

    def _watch(self, stops: Any) -> None:
        while not self._leave.wait(_INTERVAL):
            try:
                if not stops.empty():
                    self._leave.set()
            except ray.exceptions.RayError:  # the driver is gone, and its queue with it
                return
