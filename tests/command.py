"""`bgsweep …` as a user types it, in this process, which has imported what takes a new one seconds, or in a new one."""

import contextlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

from bgsweep.cli.main import main


def bgsweep(*arguments: object, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command in a folder; what it gives and prints is told as of a process."""
    words, out, err = list(map(str, arguments)), io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def take_ctrl_c() -> None:
    """Call this first in a new process (`preexec_fn`): jobs in a shell's background ignore Ctrl-C, and so do theirs."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def fresh(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a line as a shell takes it, in a process that inherits nothing but the way to programs and a home folder."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    environment = {"PATH": path, "HOME": os.environ["HOME"]}
    return subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
