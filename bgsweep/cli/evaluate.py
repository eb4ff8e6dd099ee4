"""Commands that evaluate encoders: `evaluate`, `compare`, `export` and `backgrounds make`."""

import sys
from pathlib import Path

from bgsweep.cli.common import Command, Group, Options, Result, add_store, count, positive, store
from bgsweep.cli.common import store_folder as folder
from bgsweep.cli.formatting import percent, table
from bgsweep.cli.parser import Parser
from bgsweep.errors import UserError
from bgsweep.storage.layout import checkpoint_file

_MODEL = (
    "checkpoint, MLflow URI (models:/NAME@ALIAS), torchvision:NAME, timm:NAME, hf:ID, onnx:FILE, or a network and the "
    "file of its "
    "weights (resnet50=FILE, timm:NAME=FILE) from MoCo, BYOL, SwAV, DINO, lightly and others"
)
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Evaluate(Command):
    """Evaluate an encoder by a suite of protocols."""

    name = "evaluate"

    def arguments(self, parser: Parser) -> None:
        parser.add_argument("model", help=_MODEL)
        parser.add_argument("file", type=Path, nargs="?", help="YAML file with an `experiment:`, without --suite")
        parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, without --suite")
        parser.add_argument("--suite", help="quick, paper, or names of evaluators, separated by commas")
        parser.add_argument("--data", type=Path, help="YAML file of a suite: images, published data sets, settings")
        add_store(parser)

    def run(self, options: Options) -> Result:
        if options.suite is not None or options.data:
            if options.file:
                raise UserError(f"{options.file}: a suite's images are named in a file of its own; write --data FILE")
            from bgsweep.api import evaluate

            suite = "quick" if options.suite is None else options.suite
            return evaluate(options.model, suite, data=options.data, store=options.store)
        if options.file is None:
            raise UserError(
                "evaluate: nothing to measure is given; name a --suite (such as quick), or the YAML file of the "
                "checkpoint's experiment"
            )
        from bgsweep.config import load

        config = load(options.file, options.overrides, searched=False)
        from bgsweep.training.checkpoint import load_trained
        from bgsweep.training.final_evaluation import evaluate_final

        return evaluate_final(config, load_trained(options.model)).public()

    def show(self, result: Result) -> str:
        if "results" in result:
            return _suite(result)
        if result["knn_top1"] is None:
            return table(["", ""], [[name, f"{value:.4g}"] for name, value in result["unlabelled"].items()])
        head = f"kNN {percent(result['knn_top1'])} %   linear {percent(result['linear_top1'])} %"
        if not result["backgrounds"]:
            return head
        rows = [
            [label, *map(percent, result[key].values())]
            for label, key in (("kNN", "backgrounds"), ("linear", "backgrounds_linear"))
        ]
        return f"{head}\n\n{table(['', *result['backgrounds']], rows)}"

    def failures(self, result: Result) -> list[str]:
        return _failed(result)


def _failed(result: Result) -> list[str]:
    again = "; the same command tries it again, and measures nothing else again"
    return [f"{name} failed: {reason}{again}" for name, reason in result.get("failed", {}).items()]


def _suite(result: Result) -> str:
    """A row for each value, and below the table each evaluator's protocol."""
    rows, notes = [], []
    for evaluator, found in result["results"].items():
        values = enumerate(found["values"].items())
        rows += [["" if number else evaluator, name, percent(value)] for number, (name, value) in values]
        notes.append(f"{evaluator}: " + "; ".join(f"{key} {value}" for key, value in found["protocol"].items()))
    origin = ", ".join(f"{key} {value}" for key, value in result["origin"].items())
    run = f"MLflow run  {result['run_id']} at {result['tracking_uri']}"
    return "\n".join([f"{result['model']} ({origin})", "", table(("evaluator", "value", "%"), rows), *notes, "", run])


class Compare(Command):
    """Compare encoders, trials and sweeps on the same images, image by image."""

    name = "compare"

    def arguments(self, parser: Parser) -> None:
        parser.add_argument(
            "models",
            nargs="+",
            metavar="model",
            help=f"{_MODEL}; or a sweep's name (its champion, and its search's course), or SWEEP/t03 (a trial)",
        )
        parser.add_argument(
            "--suite", default="quick", help="as for evaluate, or none: only courses of sweeps; default %(default)s"
        )
        parser.add_argument(
            "--data", type=Path, help="as for evaluate; default: the images that the first model was trained on"
        )
        parser.add_argument("--out", type=Path, help="page to write, such as compare.html; default: none")
        add_store(parser)

    def run(self, options: Options) -> Result:
        from bgsweep.workflows.compare import compare

        return compare(options.models, options.suite, options.data, store(options), options.out)

    def show(self, result: Result) -> str:
        shown = [show_comparison(result)] if result["rows"] else []
        page = [f"wrote {result['page']}: open it in a browser"] if result["page"] else []
        return "\n".join([*shown, *page])

    def failures(self, result: Result) -> list[str]:
        return _failed(result)


class Audit(Command):
    """Measure on a folder of images how much encoders rely on backgrounds, and write a page."""

    name = "audit"

    def arguments(self, parser: Parser) -> None:
        parser.add_argument("models", nargs="+", metavar="MODEL", help=_MODEL)
        parser.add_argument(
            "images",
            metavar="IMAGES",
            help="folder of class folders, or of images; behind it may stand MASKS, the folder of their masks; without "
            "one masks are made by U2-Net-P",
        )
        parser.add_argument("--out", type=Path, default=Path("audit.html"), help="page to write; default %(default)s")
        parser.add_argument(
            "--limit", type=count, help="largest number of images; of more a sample; default 1000, with --full all"
        )
        parser.add_argument(
            "--full",
            action="store_true",
            help="every measure takes every image; by default those with many versions of each, or with maps, take 100 "
            "of the audited half, of each class its share; the page says how many",
        )
        parser.add_argument(
            "--precision",
            choices=("auto", "fp32"),
            default="fp32",
            help="of encoding; auto: bfloat16 where the device computes it natively; default %(default)s",
        )
        parser.add_argument("--seed", type=int, default=0, help="seed of the sample and all draws; default %(default)s")
        add_store(parser)

    def run(self, options: Options) -> Result:
        from bgsweep.workflows.audit import audit

        if options.seed < 0:
            raise UserError(f"--seed {options.seed}: give a seed from 0 on")
        models, images, masks = _apart([*options.models, options.images])
        more = {"full": options.full, "precision": options.precision}
        return audit(models, images, masks, options.out, folder(options), options.limit, options.seed, **more)

    def show(self, result: Result) -> str:
        lines = [f"{one['model']} {one['verdict']}" for one in result["models"]]
        failed = {
            measure["name"]: model["reason"]
            for measure in result["measures"]
            for model in measure["models"]
            if model["status"] == "failed"
        }
        lines += [f"{name} failed: {reason}" for name, reason in failed.items()]
        again = "; the same command tries again what failed" if failed else ""
        return "\n".join([*lines, f"wrote {result['page']}: open it in a browser{again}"])


def _apart(words: list[str]) -> tuple[list[str], Path, Path | None]:
    """Models, images and masks of `MODEL… IMAGES [MASKS]`: a folder of a checkpoint or an export is a model."""
    from bgsweep.models.exported import is_export  # here: `--help` must not wait for it

    folders = [
        path.is_dir() and not checkpoint_file(path).exists() and not is_export(path) for path in map(Path, words)
    ]
    if len(words) > 2 and folders[-2] and folders[-1]:
        return words[:-2], Path(words[-2]), Path(words[-1])
    if not folders[-1]:
        raise UserError(f"{words[-1]}: no such folder; name the models, then the folder of the images")
    return words[:-1], Path(words[-1]), None


def show_comparison(result: Result) -> str:
    """A row for each value; after every model but the first its difference, with the interval and a star if sure."""
    header, letters = ["evaluator", "value", "A %"], _LETTERS[: len(result["models"])]
    for letter in letters[1:]:
        header += [f"{letter} %", f"{letter} - A", "95 % interval"]
    rows, before = [], None
    for row in result["rows"]:
        cells = ["" if row["evaluator"] == before else row["evaluator"], row["name"], percent(row["values"][0])]
        for value, found in zip(row["values"][1:], row["differences"], strict=True):
            difference = "" if found["value"] is None else f"{100 * found['value']:+.1f}"
            interval = _interval(found["lower"], found["upper"]) + (" *" if found["significant"] else "")
            cells += [percent(value), difference, interval]
        rows.append(cells)
        before = row["evaluator"]
    names = [f"{letter}  {one['name']}" for letter, one in zip(letters, result["models"], strict=False)]
    return "\n".join([*names, "", table(header, rows), f"* zero lies outside the interval; {result['bootstrap']}"])


def _interval(lower: float | None, upper: float | None) -> str:
    return "none" if lower is None or upper is None else f"[{100 * lower:+.1f}, {100 * upper:+.1f}]"


class Export(Command):
    """Write an encoder into a folder that other programs load, with its model card."""

    name = "export"

    def arguments(self, parser: Parser) -> None:
        parser.add_argument("model", help=_MODEL)
        parser.add_argument(
            "--to",
            required=True,
            choices=("torchvision", "timm", "safetensors", "onnx", "hf"),
            help="torchvision, timm: a state dict under their names; safetensors: under bgsweep's; onnx: an ONNX file; "
            "hf: a folder for Hugging Face, which timm loads",
        )
        parser.add_argument("folder", metavar="DIR", type=Path, help="folder to write, which must not exist")
        add_store(parser)

    def run(self, options: Options) -> Result:
        from bgsweep.api import export

        return export(options.model, options.to, options.folder, store=options.store)

    def show(self, result: Result) -> str:
        lines = [f"wrote {result['folder']}: {', '.join(result['files'])}", f"checked: {result['checked']}"]
        code = [f"  {line}" for line in result["load"] if line]
        return "\n".join([*lines, f"load it, in {result['folder']}:", *code])


class BackgroundsMake(Command):
    """Write the eight background variants of a data set, in ImageNet-9's layout."""

    name = "make"

    def arguments(self, parser: Parser) -> None:
        parser.add_argument("images", type=Path, help="folder of class folders")
        parser.add_argument("masks", type=Path, help="folder of masks: a PNG for each image, in the same subfolders")
        parser.add_argument("--out", type=Path, required=True, help="folder to write, which must not exist")
        parser.add_argument("--size", type=count, default=224, help="side of an image in pixels; default %(default)s")
        parser.add_argument(
            "--seed", type=int, default=0, help="seed that chooses each image's new background; default %(default)s"
        )
        parser.add_argument(
            "--groups",
            action="store_true",
            help="a set like Waterbirds instead: train, validation and test, each class tied to one kind of background",
        )
        parser.add_argument(
            "--correlation",
            type=positive,
            default=0.95,
            help="with --groups: share of training images with their class's kind of background; default %(default)s",
        )

    def run(self, options: Options) -> Result:
        from bgsweep.config import Evaluate
        from bgsweep.data.datasets.folder import Folder
        from bgsweep.evaluation import VariantSet, variant_sheet
        from bgsweep.evaluation.datasets.export_variants import write_release

        if options.size < 8 or options.seed < 0:
            raise UserError(
                f"--size {options.size} --seed {options.seed}: give a size of 8 pixels or more, and a seed from 0 on"
            )
        for given in (options.images, options.masks):
            if not given.is_dir():
                raise UserError(f"{given}: no such folder; name the folder of the images, then that of their masks")
        source = Folder(options.images, ".", options.masks)
        if options.groups:
            from bgsweep.evaluation.datasets.group_maker import write_groups

            if options.correlation > 1:
                raise UserError(f"--correlation {options.correlation:g}: give a share, above 0 and at most 1")
            say = lambda line: print(line, file=sys.stderr)  # noqa: E731
            return write_groups(source, options.out, options.correlation, options.seed, say)
        variants = VariantSet(source, None, Evaluate(seed=options.seed), options.size)
        if len(set(source.labels.tolist())) < 2:
            raise UserError(
                f"{options.images}: one class, and Mixed-Rand needs backgrounds of another; give class folders"
            )
        return write_release(variants, options.out, variant_sheet(variants), lambda line: print(line, file=sys.stderr))

    def show(self, result: Result) -> str:
        if "table" in result:
            images = ", ".join(f"{count} {split}" for split, count in result["images"].items())
            tied = percent(result["correlation"])
            return (
                f"wrote {result['out']}: {images} images of {len(result['classes'])} classes before "
                f"{len(result['classes'])} kinds of background; in train {tied} % before their own\n"
                f"measure with --suite groups and in its file: groups: {{path: {result['table']}}}"
            )
        return (
            f"wrote {result['out']}: {result['images_per_variant']} images in each of eight variants, "
            f"{len(result['classes'])} classes; {result['left_out']} images left out\n"
            f"overview: {result['out']}/variants.png"
        )


COMMANDS = (
    Evaluate(),
    Compare(),
    Audit(),
    Export(),
    Group("backgrounds", "background variants of a data set", (BackgroundsMake(),)),
)
