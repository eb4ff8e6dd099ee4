"""Signals that end a command, even where the library that was interrupted goes on as if nothing had been."""

import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bgsweep import interrupt
from bgsweep.sweep.guards import Disk
from bgsweep.sweep.sweep import _Stop


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    interrupt._interrupted = False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_swallowed_signal_ends_the_search_at_its_next_step(tmp_path: Path, number: signal.Signals) -> None:
    stop = _Stop(tmp_path / "stop", Disk(tmp_path))
    interrupt.listen()
    assert not stop.stop_all()
    with suppress(KeyboardInterrupt):
        signal.raise_signal(number)
        pytest.fail("nothing was raised")
    with pytest.raises(KeyboardInterrupt):
        stop.stop_all()
    interrupt.listen()
    assert not stop.stop_all(), "one command's signal ends the next one"


def test_who_is_told_to_ignore_ctrl_c_goes_on_doing_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupt.listen()
    signal.raise_signal(signal.SIGINT)
    interrupt.check()
