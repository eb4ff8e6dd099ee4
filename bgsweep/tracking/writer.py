"""Calls to a server that may be unreachable for some time, made in a thread so that training does not wait."""

import contextlib
import errno
import functools
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from bgsweep.errors import UserError, one_line

T = TypeVar("T")

BATCH_SECONDS = 2.0
"""Time for which items wait for others of the same kind, so that a call carries as many as possible."""

_log = logging.getLogger(__name__)


class Writer:
    """Makes calls in order in one thread, and retries a call while the server is unreachable."""

    def __init__(self, address: str, patience: float) -> None:
        self._address = address
        self._patience = patience
        self._down_since: float | None = None
        self._lost = 0
        self._error = ""
        self._queue: queue.Queue[tuple[Callable[[], Any], Future[Any]]] = queue.Queue()
        self._held: dict[str, tuple[list[Any], Callable[[list[Any]], Any]]] = {}
        self._held_since = 0.0
        self._lock = threading.RLock()
        # A daemon thread, so that an unreachable server does not keep the program from exiting.
        threading.Thread(target=self._work, name="mlflow-writer", daemon=True).start()

    def submit(self, call: Callable[[], T]) -> "Future[T]":
        """Queue a call, behind all items that are held back."""
        future: Future[T] = Future()
        with self._lock:
            self._release()
            self._queue.put((call, future))
        return future

    def gather(self, key: str, items: list[Any], send: Callable[[list[Any]], Any]) -> None:
        """Queue items that are sent together with others of the same key; at the latest before the next call."""
        with self._lock:
            if not self._held:
                self._held_since = time.monotonic()
            self._held.setdefault(key, ([], send))[0].extend(items)

    def _release(self) -> None:
        for items, send in self._held.values():
            self._queue.put((functools.partial(send, items), Future()))
        self._held.clear()

    def _next(self) -> tuple[Callable[[], Any], "Future[Any]"]:
        while True:
            with self._lock:
                if self._held and time.monotonic() - self._held_since >= BATCH_SECONDS:
                    self._release()
            with contextlib.suppress(queue.Empty):
                return self._queue.get(timeout=BATCH_SECONDS / 4)

    def ask(self, call: Callable[[], T]) -> T:
        """Make a call and return its result, after all calls that were queued before."""
        try:
            return self.submit(call).result()
        except Exception as error:
            raise UserError(
                f"MLflow at {self._address} rejects a call or is unreachable: {one_line(error)}; check the server"
            ) from error

    def flush(self, timeout: float) -> bool:
        """Wait until the queue is empty; False, with a warning, if calls failed or the time was too short."""
        with self._lock:
            self._release()
        with self._queue.all_tasks_done:
            self._queue.all_tasks_done.wait_for(lambda: not self._queue.unfinished_tasks, timeout)
            missing = self._lost + self._queue.unfinished_tasks
        if missing and (self._lost or self._down_since):
            _log.warning("%d writes to MLflow at %s are missing: %s", missing, self._address, self._error)
        elif missing:
            _log.warning("%d writes to MLflow at %s were not made within %g s", missing, self._address, timeout)
        self._lost = 0
        return not missing

    def _work(self) -> None:
        while True:
            call, future = self._next()
            try:
                future.set_result(self._insist(call))
            except Exception as error:
                self._lost, self._error = self._lost + 1, one_line(error)
                future.set_exception(error)
            self._queue.task_done()

    def _insist(self, call: Callable[[], T]) -> T:
        pause = 0.1
        while True:
            try:
                answer = call()
            except Exception as error:
                if is_final(error):
                    raise
                self._error = one_line(error)
                if self._down_since is None:
                    self._down_since = time.monotonic()
                    _log.warning("MLflow at %s is unreachable; writes are retried: %s", self._address, self._error)
                if time.monotonic() - self._down_since > self._patience:
                    raise
            else:
                self._down_since = None
                return answer
            time.sleep(pause)
            pause = min(2 * pause, 10)


def is_final(error: Exception) -> bool:
    """True if the call would fail again: the server rejected it, or its arguments are wrong."""
    status = getattr(error, "get_http_status_code", None)  # an MlflowException
    if status is None:
        return not isinstance(error, OSError) or isinstance(error, PermissionError) or error.errno == errno.EROFS
    return 400 <= status() < 500 and status() not in (408, 429)  # request timeout, too many requests
