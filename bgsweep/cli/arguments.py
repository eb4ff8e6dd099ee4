"""The commands and what each may be given; `bgsweep.cli.commands` holds what they do."""

import argparse
import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bgsweep import __version__
from bgsweep.cli import commands
from bgsweep.errors import UserError

_MODEL = (
    "a checkpoint, an MLflow URI (models:/NAME@ALIAS), torchvision:NAME, timm:NAME, or weights of MoCo, BYOL, SwAV, "
    "DINO, lightly and others with their network: resnet50=FILE, timm:NAME=FILE"
)


_MEANT = {
    "resume": "`bgsweep sweep --resume NAME` goes on with a sweep",
    "list": "`bgsweep status` lists the sweeps of a store, `bgsweep models` the registered encoders",
    "ls": "`bgsweep status` lists the sweeps of a store, `bgsweep models` the registered encoders",
    "train": "`bgsweep pretrain FILE` trains one experiment, `bgsweep masks train` a network for masks",
    "run": "`bgsweep pretrain FILE` trains one experiment, `bgsweep sweep FILE` searches",
    "search": "`bgsweep sweep FILE` searches",
    "tune": "`bgsweep sweep FILE` searches",
    "kill": "`bgsweep stop NAME` ends a sweep",
    "cancel": "`bgsweep stop NAME` ends a sweep",
    "eval": "did you mean `evaluate`?",
    "test": "did you mean `evaluate`?",
    "register": "`bgsweep sweep` registers its best encoder, `bgsweep promote MODEL VERSION` makes one the champion",
    "help": "did you mean `bgsweep --help`?",
}
"""What people type for a command, from habit, and what does it here."""


class Parser(argparse.ArgumentParser):
    """Raises a `UserError` for a line that it does not understand."""

    def error(self, message: str) -> NoReturn:
        if found := re.match(r"argument (?:COMMAND|ACTION): invalid choice: '(.*?)' \(choose from (.*)\)", message):
            given, known = found[1], found[2].replace("'", "").split(", ")
            meant = _MEANT.get(given) if self.prog == "bgsweep" else None
            near = difflib.get_close_matches(given, known, n=1)
            meant = meant or (f"did you mean `{near[0]}`?" if near else "")
            message = "; ".join(filter(None, (f"{given!r}: no such command", meant, f"known: {', '.join(known)}")))
        # argparse counts a list that may be empty among what is required.
        message = message.removesuffix(", key=value")
        raise UserError(f"{message}; see `{self.prog} --help`")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the whole line, with ``run(options)``, and ``show(result)`` to print what it gives.

    Raises:
        UserError: the line is none of bgsweep's.
    """
    options, rest = _parser().parse_known_args(arguments)
    # argparse fills a list of positionals from before the first option only; `--store there key=value` goes on with it.
    several = next((name for name in ("overrides", "models") if name in options), None)
    if rest and (several is None or any(word.startswith("-") for word in rest)):
        raise UserError(_unrecognized(rest, options.parser, takes_overrides=several == "overrides"))
    if several:
        setattr(options, several, [*getattr(options, several), *rest])
    return options


def _unrecognized(rest: Sequence[str], parser: argparse.ArgumentParser, takes_overrides: bool) -> str:
    """The refusal of words that a command does not take."""
    word = next((word for word in rest if word.startswith("-")), rest[0])
    name, equals, value = word.lstrip("-").partition("=")
    known = re.findall(r"--[a-z-]+", parser.format_usage())
    near = difflib.get_close_matches(f"--{name}", known, n=1) if word.startswith("-") else []
    if near:
        cure = f"did you mean {near[0]}?"
    elif equals and takes_overrides:
        cure = f"an override has no dashes: {name}={value}"
    elif equals or "=" in word:
        cure = "this command takes no key=value"
    else:
        cure = f"options: {', '.join(known)}" if known else "it takes no options"
    return f"unrecognized arguments: {' '.join(rest)}; {cure}; see `{parser.prog} --help`"


def _parser() -> Parser:
    made = Parser(
        prog="bgsweep", description="Pretrain encoders with background augmentations, and search their strength."
    )
    made.add_argument("--version", action="version", version=f"bgsweep {__version__}")
    parsers = made.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    _training_commands(parsers)
    _watching_commands(parsers)
    _judging_commands(parsers)
    _photograph_commands(parsers)
    return made


def _training_commands(parsers: Any) -> None:
    pretrain = _command(parsers, "pretrain", "train the experiment of one file", commands.pretrain)
    _file_arguments(pretrain)
    pretrain.add_argument(
        "--fresh", action="store_true", help="start again even where a checkpoint of this experiment is"
    )

    sweep = _command(parsers, "sweep", "search a file's space and register the best encoder", commands.sweep)
    _file_arguments(sweep, optional=True)
    sweep.add_argument(
        "--resume",
        metavar="NAME",
        help="instead of a file: go on with a sweep whose driver died, or run its end again; key=value as in "
        "docs/operations.md",
    )
    sweep.add_argument("--name", help="of the sweep (default: the file's, the time and four letters)")

    plan = _command(parsers, "plan", "say what a sweep will cost, by simulating its scheduler", commands.plan)
    _file_arguments(plan, store=False)
    plan.add_argument("--gpus", type=_count, required=True, help="devices; without GPUs, places for a trial each")
    plan.add_argument("--hourly-price", type=_positive, help="of one device, in any currency")
    plan.add_argument("--epoch-seconds", type=_positive, help="of one trial; two epochs are trained here without it")

    submit = _command(parsers, "submit", "hand a sweep in as a job on a Ray cluster", commands.submit)
    submit.add_argument("file", type=Path, help="YAML file with an `experiment:`; its places are the cluster's")
    submit.add_argument("overrides", nargs="*", metavar="key=value", help="as of sweep")
    _address_argument(submit, required=True)
    submit.add_argument("--wait", action="store_true", help="follow the log until the sweep's end, and show its result")
    submit.add_argument("--store", help="folder or URI that all nodes see (default: $BGSWEEP_STORE of the cluster)")
    submit.add_argument("--code", action="store_true", help="send this checkout of bgsweep along, for developers")
    submit.add_argument("--env", action="append", default=[], metavar="NAME", help="pass one more variable on")


def _watching_commands(parsers: Any) -> None:
    status = _command(parsers, "status", "show the sweeps of a store, or the trials of one", commands.status)
    status.add_argument("name", nargs="?", help="a sweep's name; all sweeps where it is left out")
    _store_argument(status)
    _address_argument(status)

    stop = _command(parsers, "stop", "end a running sweep; what has come to its end is judged", commands.stop)
    stop.add_argument("name", help="the sweep's name, as `bgsweep status` shows it")
    _store_argument(stop)
    _address_argument(stop)

    models = _command(parsers, "models", "list registered encoders, their numbers and lineage", commands.models)
    models.add_argument("name", nargs="?", help="a registered model; all where it is left out")
    _store_argument(models)

    promote = _command(parsers, "promote", "make a registered version the champion by hand", commands.promote)
    promote.add_argument("name", metavar="MODEL", help="a registered model, as `bgsweep models` lists it")
    promote.add_argument("version", metavar="VERSION", help="its number, or an alias such as challenger")
    promote.add_argument("--alias", default="champion", help="alias to give it (default: %(default)s)")
    _store_argument(promote)

    report = _command(parsers, "report", "write what a sweep found as one page", commands.report)
    report.add_argument("name", help="the sweep's name, as `bgsweep status` shows it")
    report.add_argument("--out", type=Path, default=Path("report.html"), help="page to write (default: %(default)s)")
    _store_argument(report)

    policy = _command(parsers, "policy", "write a sweep's learnt augmentation policy as a JSON file", commands.policy)
    policy.add_argument("name", help="the sweep's name, as `bgsweep status` shows it")
    policy.add_argument("--trial", help="such as t03 (default: the best of those that ran to their end)")
    policy.add_argument("--out", type=Path, default=Path("policy.json"), help="file to write (default: %(default)s)")
    _store_argument(policy)


def _judging_commands(parsers: Any) -> None:
    evaluate = _command(parsers, "evaluate", "judge an encoder by a suite of protocols", commands.evaluate)
    evaluate.add_argument("model", help=_MODEL)
    evaluate.add_argument("file", type=Path, nargs="?", help="without --suite: YAML file with an `experiment:`")
    evaluate.add_argument("overrides", nargs="*", metavar="key=value", help="without --suite: as in pretrain")
    evaluate.add_argument("--suite", help="quick, paper, or evaluators by name, with commas between them")
    evaluate.add_argument("--data", type=Path, help="YAML file of a suite: photographs, published sets, settings")
    _store_argument(evaluate)

    compare = _command(parsers, "compare", "judge encoders side by side, picture by picture", commands.compare)
    compare.add_argument("models", nargs="+", metavar="model", help=_MODEL)
    compare.add_argument("--suite", default="quick", help="as of evaluate (default: %(default)s)")
    compare.add_argument("--data", type=Path, help="as of evaluate; else the photographs of the first model's training")
    _store_argument(compare)

    backgrounds = parsers.add_parser("backgrounds", help="background variants of a set of photographs")
    actions = backgrounds.add_subparsers(required=True, metavar="ACTION", parser_class=Parser)
    make = _command(
        actions, "make", "write a set's eight variants as ImageNet-9 is released", commands.backgrounds_make
    )
    make.add_argument("images", type=Path, help="folder of class folders")
    make.add_argument("masks", type=Path, help="folder that mirrors it, a PNG for each photograph")
    make.add_argument("--out", type=Path, required=True, help="folder to write, which must not exist")
    make.add_argument("--size", type=_count, default=224, help="side of the pictures in pixels (default: %(default)s)")
    make.add_argument("--seed", type=int, default=0, help="decides which backgrounds meet (default: %(default)s)")


def _photograph_commands(parsers: Any) -> None:
    preview = _command(parsers, "preview", "write a picture of augmented views", commands.preview)
    _file_arguments(preview)
    preview.add_argument("--out", type=Path, default=Path("preview.png"), help="PNG to write (default: %(default)s)")
    preview.add_argument("--images", type=_count, default=6, help="rows of the picture (default: %(default)s)")

    masks = parsers.add_parser("masks", help="make foreground masks, learn them, score them, look at them")
    _mask_commands(masks.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser))

    pack = _command(parsers, "pack", "write photographs and masks into a few large files", commands.pack)
    pack.add_argument("images", help="folder that holds the splits, or a URI such as s3://bucket/folder")
    pack.add_argument("masks", help="folder or URI that mirrors it, a PNG for each image")
    pack.add_argument("--out", required=True, help="folder or URI to write, which must not exist")

    doctor = _command(parsers, "doctor", "say what is here and what is missing for what", commands.doctor)
    doctor.add_argument("file", nargs="?", type=Path, help="also check this file's data, device and tracking")
    _store_argument(doctor)


def _mask_commands(parsers: Any) -> None:
    make = _command(parsers, "make", "make a foreground mask for every image", commands.masks_make)
    make.add_argument("images", help="folder of images, or a URI such as s3://bucket/folder")
    make.add_argument("--out", required=True, help="folder or URI of the masks, which mirror the images")
    methods = ("rbd", "mbd", "grabcut", "u2net", "usps")
    make.add_argument("--method", choices=methods, help="default: u2net where --weights are named, else rbd")
    make.add_argument(
        "--weights", help="ONNX file; of u2net also u2netp (its default) or u2net, fetched once; of usps from `train`"
    )
    make.add_argument("--workers", type=_count, help="processes, one core each (default: all cores of this machine)")

    train = _command(parsers, "train", "learn masks without labels", commands.masks_train)
    train.add_argument("images", help="folder of images, or a URI such as s3://bucket/folder")
    train.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. side=160 rounds=2; see docs/masks.md")
    train.add_argument("--out", type=Path, required=True, help="ONNX file to write, for `make --method usps`")
    train.add_argument("--encoder", type=Path, metavar="CHECKPOINT", help="of a self-supervised run, to start from")
    train.add_argument("--workers", type=_count, help="as of `make`, for the handcrafted masks")

    score = _command(parsers, "score", "compare masks with the truth", commands.masks_score)
    score.add_argument("masks", help="folder or URI of masks")
    score.add_argument("truth", help="folder or URI of true masks of the same names")
    score.add_argument("--table", type=Path, metavar="CSV", help="also write each image's values into this file")

    show = _command(parsers, "show", "write a contact sheet, strangest masks first", commands.masks_show)
    show.add_argument("images", help="folder or URI of images")
    show.add_argument("masks", help="folder or URI of their masks")
    show.add_argument("--out", type=Path, default=Path("masks.png"), help="PNG to write (default: %(default)s)")
    show.add_argument("--images", dest="shown", type=_count, default=48, help="how many (default: %(default)s)")


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _command(parsers: Any, name: str, text: str, run: Callable[..., commands.Result]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = parsers.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")

    def shown(result: commands.Result) -> None:
        from bgsweep.cli import show

        print(getattr(show, f"show_{run.__name__}")(result))

    parser.set_defaults(run=run, show=shown, parser=parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line of stdout")
    return parser


def _file_arguments(parser: argparse.ArgumentParser, optional: bool = False, store: bool = True) -> None:
    parser.add_argument("file", type=Path, nargs="?" if optional else None, help="YAML file with an `experiment:`")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. background.remove=0.3 search.trials=8")
    if store:
        _store_argument(parser)


def _store_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store",
        type=commands.place,
        help="folder (for sweeps also a URI such as s3://bucket/folder) of checkpoints and, unless "
        f"MLFLOW_TRACKING_URI is set, of the MLflow store (default: $BGSWEEP_STORE, else {commands.DEFAULT_STORE})",
    )


def _address_argument(parser: argparse.ArgumentParser, required: bool = False) -> None:
    parser.add_argument(
        "--address", required=required, metavar="URL", help="dashboard of the Ray cluster, http://HOST:8265"
    )
