"""Ctrl-C and SIGTERM: an exception that ends a command, and a memory of it, for some who are interrupted swallow it."""

import signal
from types import FrameType

_interrupted = False


def listen() -> None:
    """Let a stopped job close its runs as Ctrl-C does; for the main thread."""
    global _interrupted
    _interrupted = False
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else whoever started us has it ignored
        signal.signal(signal.SIGINT, _interrupt)


def check() -> None:
    """Raise again what was lost, as it is where Python was just running a destructor or a callback of C code.

    Raises:
        KeyboardInterrupt: a signal has come since `listen`.
    """
    if _interrupted:
        raise KeyboardInterrupt


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt
