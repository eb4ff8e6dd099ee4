"""Run a command as a process that ends without tearing the interpreter down."""

import atexit
import contextlib
import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn


def run(main: Callable[[], int]) -> NoReturn:
    """Call ``main``, run what it registered with `atexit`, and end the process with its exit code.

    The interpreter is not torn down: threads of native libraries still run then, and one of them once crashed, which
    gave a finished study exit code 139. Handlers registered before this call do not run, so ``main`` must import heavy
    packages itself.
    """
    code = 1
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be UTF-8

    def leave() -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(BrokenPipeError):  # the reader, such as `| head`, may have closed the pipe
                stream.flush()
        os._exit(code)

    atexit.register(leave)  # registered first, so called last
    try:
        sys.exit(main())
    except SystemExit as end:  # argparse's too
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
