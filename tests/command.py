"""`bgsweep …` as a user types it, in this process, which has imported what a new one would take seconds for."""

import contextlib
import io
import subprocess
from pathlib import Path

from bgsweep.cli.main import main


def bgsweep(*arguments: object, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command in a folder; what it gives and prints is told as of a process."""
    words, out, err = list(map(str, arguments)), io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())
