"""The command line: parse, call one command, print its result."""

import argparse
import contextlib
import json
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from bgsweep import __version__
from bgsweep.cli import data, evaluate, files, masks, models, process, runs, train
from bgsweep.cli.common import Result, add_commands
from bgsweep.cli.parser import Parser, parse_line
from bgsweep.distributed import credentials
from bgsweep.errors import Stopped, UserError, without_password


def command_line() -> Parser:
    """The parser of all commands."""
    parser = Parser(
        prog="bgsweep", description="Pretrain image encoders with background augmentations, and search their strength."
    )
    parser.add_argument("--version", action="version", version=f"bgsweep {__version__}")
    parts = (train, runs, models, evaluate, data, masks, files)
    add_commands(parser, [command for part in parts for command in part.COMMANDS])
    return parser


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line, with its `command`.

    Raises:
        UserError: the line is not one of bgsweep's.
    """
    return parse_line(command_line(), arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0, or 2 with a line `error: …` or with what failed or is missing, or 128 + a signal."""
    if credentials.IN_A_JOB in os.environ:
        credentials.restore()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stopped job closes its runs as Ctrl-C does
    try:
        options = parse(arguments)
        # The result alone goes to stdout: Ray's listener prints warnings of its own there, whatever its settings.
        with contextlib.redirect_stdout(sys.stderr):
            result: Result = options.command.run(options)
        # A file name may hold bytes that are not UTF-8, which no stream can write.
        text = json.dumps(result) if options.json else options.command.show(result)
        print(text.encode("utf-8", "backslashreplace").decode())
        sys.stdout.flush()
        failures = options.command.failures(result)
        for line in failures:
            print(f"error: {without_password(line)}", file=sys.stderr)
        if failures or result.get("ok") is False:  # `doctor` found something missing
            return 2
    except UserError as error:
        print(f"error: {without_password(str(error))}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        words = [word for word in (sys.argv[1:] if arguments is None else arguments) if word != "--fresh"]
        print(f"{stopped}, with a checkpoint; resume with `{shlex.join(['bgsweep', *words])}`", file=sys.stderr)
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # of `| head`
        return 128 + signal.SIGPIPE
    return 0


def run() -> NoReturn:
    """Entry point of the `bgsweep` script."""
    process.run(main)


if __name__ == "__main__":
    run()
