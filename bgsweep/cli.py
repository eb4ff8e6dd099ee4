"""The command line: parse, call one function, print. What it calls is imported only then, so that `--help` is quick."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bgsweep import __version__, handover
from bgsweep.errors import UserError

DEFAULT_STORE = "bgsweep_runs"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see `{self.prog} --help`")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0, or 2 with a line `error: …` for what the user can mend."""
    if handover.IN_A_JOB in os.environ:
        handover.take_up()
    wants_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stopped job closes its runs as Ctrl-C does
    try:
        options = _parser().parse_args(arguments)
        result: dict[str, Any] = options.run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    if wants_json:
        print(json.dumps(result))
    else:
        options.show(result)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="bgsweep", description="Pretrain encoders with background augmentations, and search their strength."
    )
    parser.add_argument("--version", action="version", version=f"bgsweep {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    pretrain = _command(commands, "pretrain", "train the experiment of one file", _pretrain, "show_pretrain")
    _file_arguments(pretrain)
    pretrain.add_argument(
        "--fresh", action="store_true", help="start again even where a checkpoint of this experiment is"
    )

    sweep = _command(commands, "sweep", "search a file's space and register the best encoder", _sweep, "show_sweep")
    _file_arguments(sweep, optional=True)
    sweep.add_argument("--resume", metavar="NAME", help="go on with a sweep whose driver died, instead of a file")
    sweep.add_argument("--name", help="of the sweep (default: the file's, the time and four letters)")

    plan = _command(commands, "plan", "say what a sweep will cost, by simulating its scheduler", _plan, "show_plan")
    _file_arguments(plan, store=False)
    plan.add_argument("--gpus", type=_count, required=True, help="devices; without GPUs, places for a trial each")
    plan.add_argument("--hourly-price", type=_positive, help="of one device, in any currency")
    plan.add_argument("--epoch-seconds", type=_positive, help="of one trial; two epochs are trained here without it")

    status = _command(commands, "status", "show the sweeps of a store, or the trials of one", _status, "show_status")
    status.add_argument("name", nargs="?", help="a sweep's name; all sweeps where it is left out")
    _store_argument(status)
    _address_argument(status)

    submit = _command(commands, "submit", "hand a sweep in as a job on a Ray cluster", _submit, "show_submit")
    submit.add_argument("file", type=Path, help="YAML file with an `experiment:`; its places are the cluster's")
    submit.add_argument("overrides", nargs="*", metavar="key=value", help="as of sweep")
    _address_argument(submit, required=True)
    submit.add_argument("--wait", action="store_true", help="follow the log until the sweep's end, and show its result")
    submit.add_argument("--store", help="folder or URI that all nodes see (default: $BGSWEEP_STORE of the cluster)")
    submit.add_argument("--code", action="store_true", help="send this checkout of bgsweep along, for developers")
    submit.add_argument("--env", action="append", default=[], metavar="NAME", help="pass one more variable on")

    stop = _command(commands, "stop", "end a running sweep; what has come to its end is judged", _stop, "show_stop")
    stop.add_argument("name", help="the sweep's name, as `bgsweep status` shows it")
    _store_argument(stop)
    _address_argument(stop)

    models = _command(commands, "models", "list registered encoders, their numbers and lineage", _models, "show_models")
    models.add_argument("name", nargs="?", help="a registered model; all where it is left out")
    _store_argument(models)

    promote = _command(commands, "promote", "make a registered version the champion by hand", _promote, "show_promote")
    promote.add_argument("name", metavar="MODEL", help="a registered model, as `bgsweep models` lists it")
    promote.add_argument("version", metavar="VERSION", help="its number, or an alias such as challenger")
    promote.add_argument("--alias", default="champion", help="alias to give it (default: %(default)s)")
    _store_argument(promote)

    report = _command(commands, "report", "write what a sweep found as one page", _report, "show_report")
    report.add_argument("name", help="the sweep's name, as `bgsweep status` shows it")
    report.add_argument("--out", type=Path, default=Path("report.html"), help="page to write (default: %(default)s)")
    _store_argument(report)

    evaluate = _command(commands, "evaluate", "judge an encoder by a suite of protocols", _evaluate, "show_evaluate")
    evaluate.add_argument("model", help=_MODEL)
    evaluate.add_argument("file", type=Path, nargs="?", help="without --suite: YAML file with an `experiment:`")
    evaluate.add_argument("overrides", nargs="*", metavar="key=value", help="without --suite: as in pretrain")
    evaluate.add_argument("--suite", help="quick, paper, or evaluators by name, with commas between them")
    evaluate.add_argument("--data", type=Path, help="YAML file of a suite: photographs, published sets, settings")
    _store_argument(evaluate)

    compare = _command(commands, "compare", "judge encoders side by side, picture by picture", _compare, "show_compare")
    compare.add_argument("models", nargs="+", metavar="model", help=_MODEL)
    compare.add_argument("--suite", default="quick", help="as of evaluate (default: %(default)s)")
    compare.add_argument("--data", type=Path, help="as of evaluate; else the photographs of the first model's training")
    _store_argument(compare)

    backgrounds = commands.add_parser("backgrounds", help="background variants of a set of photographs")
    actions = backgrounds.add_subparsers(required=True, metavar="ACTION", parser_class=_Parser)
    make = _command(actions, "make", "write a set's eight variants as ImageNet-9 is released", _make, "show_make")
    make.add_argument("images", type=Path, help="folder of class folders")
    make.add_argument("masks", type=Path, help="folder that mirrors it, a PNG for each photograph")
    make.add_argument("--out", type=Path, required=True, help="folder to write, which must not exist")
    make.add_argument("--size", type=int, default=224, help="side of the pictures in pixels (default: %(default)s)")
    make.add_argument("--seed", type=int, default=0, help="decides which backgrounds meet (default: %(default)s)")

    preview = _command(commands, "preview", "write a picture of augmented views", _preview, "show_preview")
    _file_arguments(preview)
    preview.add_argument("--out", type=Path, default=Path("preview.png"), help="PNG to write (default: %(default)s)")
    preview.add_argument("--images", type=int, default=6, help="rows of the picture (default: %(default)s)")

    masks = commands.add_parser("masks", help="make foreground masks, learn them, score them, look at them")
    _mask_commands(masks.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser))

    pack = _command(commands, "pack", "write photographs and masks into a few large files", _pack, "show_pack")
    pack.add_argument("images", help="folder that holds the splits, or a URI such as s3://bucket/folder")
    pack.add_argument("masks", help="folder or URI that mirrors it, a PNG for each image")
    pack.add_argument("--out", required=True, help="folder or URI to write, which must not exist")

    doctor = _command(commands, "doctor", "say what is here and what is missing for what", _doctor, "show_doctor")
    doctor.add_argument("file", nargs="?", type=Path, help="also check this file's data, device and tracking")
    _store_argument(doctor)
    return parser


_MODEL = (
    "a checkpoint, an MLflow URI (models:/NAME@ALIAS), torchvision:NAME, timm:NAME, or weights of MoCo, BYOL, SwAV, "
    "DINO, lightly and others with their network: resnet50=FILE, timm:NAME=FILE"
)


def _mask_commands(commands: Any) -> None:
    make = _command(commands, "make", "make a foreground mask for every image", _masks_make, "show_masks_make")
    make.add_argument("images", help="folder of images, or a URI such as s3://bucket/folder")
    make.add_argument("--out", required=True, help="folder or URI of the masks, which mirror the images")
    methods = ("rbd", "mbd", "grabcut", "u2net", "usps")
    make.add_argument("--method", choices=methods, help="default: u2net where --weights are named, else rbd")
    make.add_argument(
        "--weights", help="ONNX file; of u2net also u2netp (its default) or u2net, fetched once; of usps from `train`"
    )
    make.add_argument("--workers", type=_count, help="processes, one core each (default: all cores of this machine)")

    train = _command(commands, "train", "learn masks without labels", _masks_train, "show_masks_train")
    train.add_argument("images", help="folder of images, or a URI such as s3://bucket/folder")
    train.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. side=160 rounds=2; see docs/masks.md")
    train.add_argument("--out", type=Path, required=True, help="ONNX file to write, for `make --method usps`")
    train.add_argument("--encoder", type=Path, metavar="CHECKPOINT", help="of a self-supervised run, to start from")
    train.add_argument("--workers", type=_count, help="as of `make`, for the handcrafted masks")

    score = _command(commands, "score", "compare masks with the truth", _masks_score, "show_masks_score")
    score.add_argument("masks", help="folder or URI of masks")
    score.add_argument("truth", help="folder or URI of true masks of the same names")
    score.add_argument("--table", type=Path, metavar="CSV", help="also write each image's values into this file")

    show = _command(commands, "show", "write a contact sheet, strangest masks first", _masks_show, "show_masks_show")
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


def _command(commands: Any, name: str, text: str, run: Callable[..., Any], show: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")

    def shown(result: dict[str, Any]) -> None:
        from bgsweep import show as pages

        print(getattr(pages, show)(result))

    parser.set_defaults(run=run, show=shown)
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
        type=_place,
        help="folder (for sweeps also a URI such as s3://bucket/folder) of checkpoints and, unless "
        f"MLFLOW_TRACKING_URI is set, of the MLflow store (default: $BGSWEEP_STORE, else {DEFAULT_STORE})",
    )


def _address_argument(parser: argparse.ArgumentParser, required: bool = False) -> None:
    parser.add_argument(
        "--address", required=required, metavar="URL", help="dashboard of the Ray cluster, http://HOST:8265"
    )


def _place(text: str) -> str | Path:
    if "://" not in text:
        return Path(text).expanduser()
    if "@" in text:
        raise argparse.ArgumentTypeError("credentials in an address would be logged; give them by the environment")
    return text


def _store(options: argparse.Namespace) -> str | Path:
    place: str | Path = options.store or _place(os.environ.get("BGSWEEP_STORE") or DEFAULT_STORE)
    return place


def _folder(options: argparse.Namespace) -> Path:
    place = _store(options)
    if not isinstance(place, Path):
        raise UserError(f"--store {place}: only sweeps keep their checkpoints at a URI; name a folder")
    return place


def _pretrain(options: argparse.Namespace) -> dict[str, Any]:
    from bgsweep.config import load
    from bgsweep.pretrain import pretrain

    return pretrain(load(options.file, options.overrides), _folder(options), fresh=options.fresh)


def _sweep(options: argparse.Namespace) -> dict[str, Any]:
    if (options.file is None) == (options.resume is None):
        raise UserError("sweep: name either a file or, with --resume, a sweep; see `bgsweep sweep --help`")
    if options.resume is not None:
        from bgsweep.sweep.sweep import resume

        return resume(options.resume, _store(options))
    from bgsweep.config import load

    file = load(options.file, options.overrides)
    from bgsweep.sweep.sweep import sweep

    return sweep(file, _store(options), options.name)


def _plan(options: argparse.Namespace) -> dict[str, Any]:
    from bgsweep.config import load

    file = load(options.file, options.overrides)
    from bgsweep.sweep.plan import plan

    return plan(file, options.gpus, options.hourly_price, options.epoch_seconds)


def _status(options: argparse.Namespace) -> dict[str, Any]:
    if options.address:
        from bgsweep import submit

        return submit.status(options.name, options.store and str(options.store), options.address)
    from bgsweep.sweep.watch import status

    return status(options.name, _store(options))


def _submit(options: argparse.Namespace) -> dict[str, Any]:
    from bgsweep.submit import submit

    return submit(
        options.file, options.overrides, options.address, options.store, options.code, options.env, options.wait
    )


def _stop(options: argparse.Namespace) -> dict[str, Any]:
    if options.address:
        from bgsweep import submit

        return submit.stop(options.name, options.store and str(options.store), options.address)
    from bgsweep.sweep.watch import stop

    return stop(options.name, _store(options))


def _models(options: argparse.Namespace) -> dict[str, Any]:
    from bgsweep.tracking import tracking_uri
    from bgsweep.tracking.registry import models

    return models(tracking_uri(_store(options)), options.name)


def _promote(options: argparse.Namespace) -> dict[str, Any]:
    from bgsweep.tracking import tracking_uri
    from bgsweep.tracking.registry import promote

    return promote(tracking_uri(_store(options)), options.name, options.version, options.alias)


def _report(options: argparse.Namespace) -> dict[str, Any]:
    from bgsweep.sweep.page import report

    return report(options.name, _store(options), options.out)


def _evaluate(options: argparse.Namespace) -> dict[str, Any]:
    if options.suite is not None or options.data:
        if options.file:
            raise UserError(
                f"{options.file}: with --suite the photographs are named in a file of their own, --data FILE"
            )
        from bgsweep.assess import assess

        return assess(
            options.model, "quick" if options.suite is None else options.suite, options.data, _folder(options)
        )
    if options.file is None:
        raise UserError("evaluate: name a --suite, or the YAML file of the checkpoint's experiment")
    from bgsweep.config import load

    file = load(options.file, options.overrides)
    from bgsweep.run import judge, load_trained

    return judge(file, load_trained(options.model)).public()


def _compare(options: argparse.Namespace) -> dict[str, Any]:
    from bgsweep.assess import compare

    return compare(options.models, options.suite, options.data, _folder(options))


def _make(options: argparse.Namespace) -> dict[str, Any]:
    from bgsweep.config import Evaluate
    from bgsweep.data.folder import Folder
    from bgsweep.evaluation import VariantSet, variant_sheet
    from bgsweep.evaluation.release import write_release

    if options.size < 8 or options.seed < 0:
        raise UserError("--size and --seed: at least 8 pixels, and a seed that is not negative")
    source = Folder(options.images, ".", options.masks)
    variants = VariantSet(source, None, Evaluate(seed=options.seed), options.size)
    if len(set(source.labels.tolist())) < 2:
        raise UserError(f"{options.images}: one class, and Mixed-Rand needs another's backgrounds; give class folders")
    return write_release(variants, options.out, variant_sheet(variants), lambda line: print(line, file=sys.stderr))


def _preview(options: argparse.Namespace) -> dict[str, Any]:
    from bgsweep.config import load

    file = load(options.file, options.overrides)
    from bgsweep.preview import preview

    return preview(file, options.out, options.images)


def _pack(options: argparse.Namespace) -> dict[str, Any]:
    from bgsweep.packing import make_pack

    return make_pack(options.images, options.masks, options.out)


def _masks_make(options: argparse.Namespace) -> dict[str, Any]:
    from bgsweep.masking import make_masks

    return make_masks(options.images, options.out, options.method, options.weights, options.workers)


def _masks_train(options: argparse.Namespace) -> dict[str, Any]:
    from bgsweep.config import mask_training

    config = mask_training(options.overrides)
    from bgsweep.mask_training import train_masks

    return train_masks(options.images, options.out, options.encoder, config, options.workers)


def _masks_score(options: argparse.Namespace) -> dict[str, Any]:
    from bgsweep.masks.score import score_trees
    from bgsweep.masks.storage import open_tree, write_file

    result, table = score_trees(open_tree(options.masks), open_tree(options.truth))
    if options.table:
        write_file(options.table, table.encode())
    return result


def _masks_show(options: argparse.Namespace) -> dict[str, Any]:
    from bgsweep.masks.sheet import contact_sheet, encode_sheet
    from bgsweep.masks.storage import open_tree, write_file

    sheet, result = contact_sheet(open_tree(options.images), open_tree(options.masks), options.shown)
    write_file(options.out, encode_sheet(sheet))
    return {"picture": str(options.out), **result}


def _doctor(options: argparse.Namespace) -> dict[str, Any]:
    from bgsweep.doctor import examine

    return examine(options.file, _folder(options))


if __name__ == "__main__":
    sys.exit(main())
