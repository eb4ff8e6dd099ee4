"""The command line: parse, call one function, print."""

import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from bgsweep.cli import process
from bgsweep.cli.arguments import parse
from bgsweep.cli.commands import Result
from bgsweep.distributed import credentials
from bgsweep.errors import UserError, without_password


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0, or 2 with a line `error: …` or what `doctor` has found missing."""
    if credentials.IN_A_JOB in os.environ:
        credentials.restore()
    wants_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stopped job closes its runs as Ctrl-C does
    try:
        options = parse(arguments)
        result: Result = options.run(options)
        if wants_json:
            print(json.dumps(result))
        else:
            options.show(result)
        sys.stdout.flush()
        if result.get("ok") is False:  # `doctor` has found that something is missing
            return 2
    except UserError as error:
        print(f"error: {without_password(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # of `| head`
        return 128 + signal.SIGPIPE
    return 0


def run() -> NoReturn:
    """The process that a shell starts."""
    process.run(main)


if __name__ == "__main__":
    run()
