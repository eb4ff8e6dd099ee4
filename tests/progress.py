"""Waiting that ends when nothing goes on any more: a busy machine makes tests slow, but no test fail."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

STILL = 240.0
"""Seconds in which nothing changes, after which waiting is given up; pytest's own timeout bounds the rest."""


def files_in(*places: Path) -> frozenset[tuple[str, int, int]]:
    """Names, sizes and times of all files in folders, which change while a run makes progress."""
    found = set()
    for place in places:
        for path in [place, *place.rglob("*")]:
            try:
                state = path.stat()
            except OSError:  # removed meanwhile
                continue
            found.add((str(path), state.st_size, state.st_mtime_ns))
    return frozenset(found)


def wait_for(
    happened: Callable[[], Any],
    progress: Callable[[], object],
    what: str | Callable[[], str],
    process: "subprocess.Popen[Any] | None" = None,
    still: float = STILL,
    every: float = 0.05,
) -> Any:
    """Wait until a call gives something, and give it back.

    Args:
        progress: anything that changes while there is progress.
        what: what to say if nothing changes for ``still`` seconds or the process has ended.
        process: whose end means that it will not happen.
    """
    watch = _watch(progress, still)
    while not (found := happened()):
        assert next(watch) and (process is None or process.poll() is None), what() if callable(what) else what
        time.sleep(every)
    return found


def output_of(
    process: "subprocess.Popen[str]", progress: Callable[[], object], still: float = STILL
) -> tuple[str, str]:
    """A process's output until its end, as ``communicate`` gives it; it is killed if it makes no progress."""
    watch = _watch(progress, still)
    while next(watch):
        try:
            return process.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    return process.communicate()


def _watch(progress: Callable[[], object], still: float) -> Iterator[bool]:
    """True as long as something has changed within ``still`` seconds; it is looked at once a second."""
    last, since, looked = progress(), time.monotonic(), time.monotonic()
    while True:
        now = time.monotonic()
        if now - looked >= 1:
            looked = now
            if (state := progress()) != last:
                last, since = state, now
        yield now - since < still
