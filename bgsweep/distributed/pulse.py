"""The trial's side of the board: signs of life, and requests for checkpoints from the sweep's driver."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import ray

from bgsweep.stopping import Request

_SEND_EVERY = 2.0  # seconds


class Pulse:
    """A trial's signs of life; called after each step and each batch of an evaluation.

    A call takes a microsecond, and every two seconds 0.3 ms, for a message whose answer nobody waits for.

    Args:
        board: name and namespace of the sweep's `bgsweep.distributed.trial_board.TrialBoard`.
        trial: its name.
        where: gives the trial's position in words.
    """

    def __init__(self, board: tuple[str, str], trial: str, where: Callable[[], str]) -> None:
        self._board = ray.get_actor(*board)
        self._trial, self._where = trial, where
        self._node = ray.get_runtime_context().get_node_id()
        self._answer: Any = None
        self._asked = self._done = 0
        self._longest: float | None = None
        self._moved = self._sent = time.monotonic()

    def __call__(self) -> Request:
        """Note that the run has moved on; gives what the driver asks for."""
        now = time.monotonic()
        self._longest = max(self._longest or 0.0, now - self._moved)
        self._moved = now
        if self._answer is not None:
            self._read()
        elif now - self._sent >= _SEND_EVERY:
            self._send(now)
        return Request.CHECKPOINT if self._asked > self._done else Request.NOTHING

    def begin(self) -> None:
        """Begin to train, after a time in which the driver let this process wait."""
        self._moved = time.monotonic()

    def done(self) -> None:
        """The checkpoint that was asked for is being written."""
        self._done = self._asked

    def waits(self, reason: str) -> None:
        """Tell what the trial waits for instead of training."""
        self._send(time.monotonic(), reason)

    def _send(self, now: float, waiting: str = "") -> None:
        self._sent = now
        self._answer = self._board.beat.remote(self._trial, self._where(), self._longest, self._node, waiting)

    def _read(self) -> None:
        if not ray.wait([self._answer], timeout=0)[0]:
            return
        with contextlib.suppress(ray.exceptions.RayError):  # the board's node has died; Ray starts it again elsewhere
            self._asked = ray.get(self._answer)
        self._answer = None


def in_words(position: tuple[int, int]) -> str:
    """A position, finished epochs and steps of the next one, in words."""
    epochs, steps = position
    return f"epoch {epochs + 1}, step {steps}" if steps else f"the end of epoch {epochs}" if epochs else "its start"
