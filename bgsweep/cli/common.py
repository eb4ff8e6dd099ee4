"""Parts that commands share: their base class, arguments that several of them take, and the store."""

import argparse
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from bgsweep.cli.parser import Parser
from bgsweep.storage.layout import DEFAULT_STORE, checked_folder, checked_store, parse_store
from bgsweep.storage.uri import Uri

if TYPE_CHECKING:
    from bgsweep.config.columns import Columns

Options = argparse.Namespace
Result = dict[str, Any]


class Command(ABC):
    """One command: its arguments, the function it calls, and its result as text. Its docstring is its help.

    `run` imports what it needs itself, so that neither `--help` nor another command waits for those libraries.
    """

    name: ClassVar[str]

    @property
    def help(self) -> str:
        """The line in a list of commands."""
        text = (self.__doc__ or "").removesuffix(".")
        return text[:1].lower() + text[1:]

    @abstractmethod
    def arguments(self, parser: Parser) -> None:
        """Declare the command's arguments."""

    @abstractmethod
    def run(self, options: Options) -> Result:
        """Do the work and return what `--json` prints."""

    @abstractmethod
    def show(self, result: Result) -> str:
        """The result as text for a person."""

    def failures(self, result: Result) -> list[str]:
        """A line for each part of the work that failed while others did not; the command then ends with 2."""
        return []


class Group(NamedTuple):
    """Commands under a common word, such as `masks make`."""

    name: str
    help: str
    commands: Sequence[Command]


def add_commands(parser: Parser, commands: Sequence[Command | Group]) -> None:
    """Add a subparser for each command."""
    parsers = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for command in commands:
        description = command.help[:1].upper() + command.help[1:] + "."
        added = parsers.add_parser(command.name, help=command.help, description=description)
        if isinstance(command, Group):
            add_commands(added, command.commands)
            continue
        added.set_defaults(command=command, parser=added)
        added.add_argument("--json", action="store_true", help="print one JSON object as the last line of stdout")
        command.arguments(added)


def count(text: str) -> int:
    """A whole number from 1 on, as the `type` of an argument."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def positive(text: str) -> float:
    """A finite number above 0, as the `type` of an argument."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def add_config(parser: Parser, optional: bool = False) -> None:
    """`FILE key=value …`: a YAML file and overrides of its keys."""
    parser.add_argument("file", type=Path, nargs="?" if optional else None, help="YAML file with an `experiment:`")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="overrides, e.g. background.remove=0.3 search.trials=8",
    )


def add_weights(parser: Parser) -> None:
    """`--from`: the encoder to start from."""
    parser.add_argument(
        "--from",
        dest="weights",
        metavar="WEIGHTS",
        help="encoder to start from, as encoder.weights=…: a checkpoint, a file of weights, models:/NAME@ALIAS, "
        "torchvision:NAME or timm:NAME",
    )


def add_columns(parser: Parser) -> None:
    """`--columns`: names in files that list or hold images."""
    parser.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="KEY=NAME",
        help="of images in a CSV, tar or parquet file: their names in it, as data.columns, e.g. image=file label=kind",
    )


def columns(options: Options) -> "Columns":
    """The names that `--columns` gives."""
    from bgsweep.config import image_columns

    return image_columns(options.columns)


def overrides(options: Options) -> list[str]:
    """The overrides of a command, `--from` among them."""
    return [*options.overrides, *([] if options.weights is None else [f"encoder.weights={options.weights}"])]


def add_store(parser: Parser) -> None:
    """`--store`: where checkpoints and, without an MLflow server, runs are kept."""
    parser.add_argument(
        "--store",
        type=parse_store,
        help="folder of checkpoints (for sweeps also a URI such as s3://bucket/folder) and, unless "
        f"MLFLOW_TRACKING_URI is set, of the MLflow store; default $BGSWEEP_STORE, else {DEFAULT_STORE}",
    )


def add_address(parser: Parser, required: bool = False) -> None:
    """`--address`: a Ray cluster's dashboard."""
    parser.add_argument(
        "--address", required=required, metavar="URL", help="dashboard of the Ray cluster, http://HOST:8265"
    )


def add_sweep(parser: Parser) -> None:
    """`NAME`: one sweep."""
    parser.add_argument("name", help="sweep name, as `bgsweep status` lists it")


def store(options: Options) -> Uri:
    """The store of a command: `--store`, else $BGSWEEP_STORE, else the default folder."""
    return checked_store(options.store)


def store_folder(options: Options) -> Path:
    """The store of a command that cannot write to a URI."""
    return checked_folder(options.store)
