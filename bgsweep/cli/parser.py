"""The argument parser: every line it does not understand is one `UserError` that says what was meant."""

import argparse
import re
from collections.abc import Sequence
from typing import NoReturn

from bgsweep.errors import UserError

_MEANT = {
    "resume": "`bgsweep sweep --resume NAME` resumes a sweep",
    "list": "`bgsweep status` lists the sweeps of a store, `bgsweep models` the registered encoders",
    "ls": "`bgsweep status` lists the sweeps of a store, `bgsweep models` the registered encoders",
    "train": "`bgsweep pretrain FILE` trains one experiment, `bgsweep masks train` a network for masks",
    "run": "`bgsweep pretrain FILE` trains one experiment, `bgsweep sweep FILE` searches",
    "search": "`bgsweep sweep FILE` searches",
    "tune": "`bgsweep sweep FILE` searches",
    "kill": "`bgsweep stop NAME` stops a sweep",
    "cancel": "`bgsweep stop NAME` stops a sweep",
    "eval": "did you mean `evaluate`?",
    "test": "did you mean `evaluate`?",
    "register": "`bgsweep sweep` registers its best encoder, `bgsweep promote MODEL VERSION` makes one the champion",
    "help": "did you mean `bgsweep --help`?",
}
"""Commands of other tools that people type out of habit, and the command here that does the same."""


class Parser(argparse.ArgumentParser):
    """An `argparse` parser that raises a `UserError` for a line it does not understand."""

    def error(self, message: str) -> NoReturn:
        if found := re.match(r"argument COMMAND: invalid choice: '(.*?)' \(choose from (.*)\)", message):
            given, known = found[1], found[2].replace("'", "").split(", ")
            meant = _MEANT.get(given) if self.prog == "bgsweep" else None
            near = _nearest(given, known)
            meant = meant or (f"did you mean `{near[0]}`?" if near else "")
            message = "; ".join(filter(None, (f"{given!r}: no such command", meant, f"known: {', '.join(known)}")))
        # argparse counts a list that may be empty among the required arguments.
        message = message.removesuffix(", key=value")
        raise UserError(f"{message}; see `{self.prog} --help`")


def parse_line(parser: Parser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line in which a list of positionals may continue behind options.

    argparse fills such a list from before the first option only, and refuses the rest of `--store there key=value`.

    Raises:
        UserError: an unknown command or option, a missing or superfluous argument.
    """
    options, rest = parser.parse_known_args(arguments)
    several = next((name for name in ("overrides", "models") if name in options), None)
    if rest and (several is None or any(word.startswith("-") for word in rest)):
        raise UserError(_unrecognized(rest, options.parser, takes_overrides=several == "overrides"))
    if several == "models" and "images" in options:  # behind the models
        words = [*options.models, options.images, *rest]
        options.models, options.images = words[:-1], words[-1]
    elif several:
        setattr(options, several, [*getattr(options, several), *rest])
    return options


def _unrecognized(rest: Sequence[str], parser: argparse.ArgumentParser, takes_overrides: bool) -> str:
    """The message for words that a command does not take."""
    word = next((word for word in rest if word.startswith("-")), rest[0])
    name, equals, value = word.lstrip("-").partition("=")
    known = re.findall(r"--[a-z-]+", parser.format_usage())
    near = _nearest(f"--{name}", known) if word.startswith("-") else []
    if near:
        hint = f"did you mean {near[0]}?"
    elif equals and takes_overrides:
        hint = f"an override has no dashes: {name}={value}"
    elif equals or "=" in word:
        hint = "this command takes no key=value"
    else:
        hint = f"options: {', '.join(known)}" if known else "it takes no options"
    return f"unrecognized arguments: {' '.join(rest)}; {hint}; see `{parser.prog} --help`"


def _nearest(name: str, known: Sequence[str]) -> list[str]:
    from difflib import get_close_matches  # here: `--help` must not wait for it

    return get_close_matches(name, known, n=1)
