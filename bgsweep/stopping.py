"""Requests to a run to stop in the middle of an epoch."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from enum import IntEnum
from types import FrameType


class Request(IntEnum):
    """Request to a run, carried out after its present step; of several requests the largest number counts."""

    NOTHING = 0
    CHECKPOINT = 1  # write a checkpoint and go on, since the node may be taken away
    LEAVE = 2  # write a checkpoint and end
    DIVERGED = 3  # fail: the loss is no longer finite


Asked = Callable[[], Request]
"""Called after each step and each batch of an evaluation, so that a call is a sign of life, too."""


def nothing_asked() -> Request:
    """The answer where nobody can ask a run to stop."""
    return Request.NOTHING


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


@contextlib.contextmanager
def remember_sigint() -> Iterator[Callable[[], bool]]:
    """A context with a function that is true once Ctrl-C was pressed.

    `KeyboardInterrupt` is raised as always, but it can be lost: Python drops what is raised in `__del__` or in a
    callback from C, and libraries catch it. Outside of the main thread, and where SIGINT is handled or ignored, nothing
    changes.
    """
    found = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal found
        found = True
        signal.default_int_handler(number, frame)

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: found
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
