"""The end of a command's process."""

import atexit
import contextlib
import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn


def run(main: Callable[[], int]) -> NoReturn:
    """Call ``main``, let what it registered with `atexit` happen, and end the process with the code that it gave.

    The interpreter is not torn down: threads of native libraries are still there then, and one of them crashed, which
    made a failure (exit code 139) of a study that had come to its end. What registered something earlier is not heard,
    so ``main`` imports heavy packages itself.
    """
    code = 1
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need be no UTF-8

    def leave() -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(BrokenPipeError):  # the reader, such as `| head`, may have closed the pipe
                stream.flush()
        os._exit(code)

    atexit.register(leave)  # before all others, and so called after them
    try:
        sys.exit(main())
    except SystemExit as end:  # argparse's too
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
