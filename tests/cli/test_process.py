"""The end of a command's process: nothing is lost, and nothing is waited for in vain."""

import subprocess
import sys

import pytest

SCRIPT = """
import atexit, sys, threading, time
from bgsweep.cli.process import run

class Torn:
    def __del__(self):
        print("torn down")

def late():
    time.sleep(0.2)
    print("thread")

def main():
    global torn
    torn = Torn()
    atexit.register(print, "at exit")
    threading.Thread(target=late).start()
    {end}

run(main)
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("return 0", 0),
        ("return 2", 2),
        ("sys.exit(3)", 3),
        ("sys.exit()", 0),
        ("sys.exit('lost')", 1),
        ("raise OSError('none')", 1),
    ],
)
def test_what_was_begun_is_ended_and_nothing_is_torn_down(end: str, code: int) -> None:
    command = [sys.executable, "-c", SCRIPT.format(end=end)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()) == (code, ["thread", "at exit"])
    assert ("OSError: none" in done.stderr) == end.startswith("raise")
