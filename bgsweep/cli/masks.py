"""Commands about foreground masks: `masks make`, `import`, `train`, `score`, `show`, `review` and `drop`."""

from pathlib import Path

from bgsweep.cli.common import Command, Group, Options, Result, add_columns, columns, count
from bgsweep.cli.formatting import percentages
from bgsweep.cli.import_masks import MasksImport
from bgsweep.cli.parser import Parser
from bgsweep.masks.interfaces import NETWORKS, NON_COMMERCIAL


class MasksMake(Command):
    """Make a foreground mask for every image."""

    name = "make"

    def arguments(self, parser: Parser) -> None:
        parser.add_argument("images", help="folder of images, a URI such as s3://bucket/folder, or a CSV, tar, … file")
        parser.add_argument("--out", required=True, help="folder or URI of the masks, in the images' subfolders")
        add_columns(parser)
        parser.add_argument(
            "--method",
            default="network",
            help="network, fusion, rbd, mbd, grabcut, usps (docs/masks.md), or package.module:Class; "
            "default %(default)s",
        )
        parser.add_argument(
            "--network",
            choices=tuple(NETWORKS),
            metavar="NAME",
            help="default: u2netp, which comes with bgsweep; u2net is downloaded; with --weights: "
            + ", ".join(name for name in NETWORKS if name != "u2netp"),
        )
        parser.add_argument(
            "--weights", metavar="FILE", help="ONNX file of the network, or of `masks train` for --method usps"
        )
        parser.add_argument(
            "--soft", action="store_true", help="keep the 256 levels of soft masks; default: only 0 and 255"
        )
        parser.add_argument("--workers", type=count, help="number of processes; default: one for each core")

    def run(self, options: Options) -> Result:
        from bgsweep.workflows.make_masks import make_masks

        return make_masks(
            options.images,
            options.out,
            options.method,
            options.weights,
            options.workers,
            options.network,
            options.soft,
            columns(options),
        )

    def show(self, result: Result) -> str:
        """Counts, unusual foregrounds, and the name of every image without a mask."""
        by = result["parameters"].get("network") or result["method"]
        lines = [
            f"{result['masks']} masks by {by} in {result['out']}, {result['made']} of them new"
            + (f" ({result['images_per_second']:.1f} images/s)" if result["made"] else ""),
            f"foregrounds: {percentages(result['shares'])}",
        ]
        if NON_COMMERCIAL in (result.get("license") or ""):
            lines.append(f"license of the network's weights: {result['license']}")
        if result["passed_over"]:
            lines.append(f"skipped: {result['passed_over']} files whose names are not those of images")
        if result["unreadable"]:
            lines.append(f"without mask: {len(result['unreadable'])} images; replace or remove them before training")
            lines += [f"  {item['image']}: {item['reason']}" for item in result["unreadable"]]
        return "\n".join(lines)


class MasksTrain(Command):
    """Train a mask network without labels."""

    name = "train"

    def arguments(self, parser: Parser) -> None:
        parser.add_argument("images", help="folder of images, a URI such as s3://bucket/folder, or a CSV, tar, … file")
        parser.add_argument(
            "overrides", nargs="*", metavar="key=value", help="settings, e.g. side=160 rounds=2; see docs/masks.md"
        )
        parser.add_argument("--out", type=Path, required=True, help="ONNX file to write, for `make --method usps`")
        add_columns(parser)
        parser.add_argument(
            "--encoder", type=Path, metavar="CHECKPOINT", help="checkpoint of a self-supervised run to start from"
        )
        parser.add_argument("--workers", type=count, help="number of processes for handcrafted masks, as for `make`")

    def run(self, options: Options) -> Result:
        from bgsweep.config import mask_training

        config = mask_training(options.overrides)
        from bgsweep.workflows.train_masks import train_masks

        return train_masks(options.images, options.out, options.encoder, config, options.workers, columns(options))

    def show(self, result: Result) -> str:
        from bgsweep.storage.uri import shell_quoted

        start = "the encoder of a self-supervised run" if result["encoder"] else "random weights"
        lines = [
            f"wrote {result['out']}: trained on {result['images']} images, masks by {', '.join(result['teachers'])}",
            f"every network started from {start}",
            f"use it: bgsweep masks make IMAGES --out MASKS --method usps --weights {shell_quoted(result['out'])}",
        ]
        lines += [f"not read: {item['image']}: {item['reason']}" for item in result["unreadable"]]
        return "\n".join(lines)


class MasksScore(Command):
    """Compare masks with true masks."""

    name = "score"

    def arguments(self, parser: Parser) -> None:
        parser.add_argument("masks", help="folder or URI of masks")
        parser.add_argument("truth", help="folder or URI of true masks with the same names")
        parser.add_argument("--table", type=Path, metavar="CSV", help="file to write each image's values into")

    def run(self, options: Options) -> Result:
        from bgsweep.masks.score import score_trees
        from bgsweep.storage.tree import open_tree, write_file

        result, rows = score_trees(open_tree(options.masks), open_tree(options.truth))
        if options.table:
            write_file(options.table, rows.encode("utf-8", "surrogateescape"))
        return result

    def show(self, result: Result) -> str:
        values = "  ".join(f"{name} {result[name]:.3f}" for name in ("max_f_beta", "mean_f_beta", "mae", "iou"))
        lines = [f"{values}  ({result['images']} images)"]
        lines += [f"not scored: {result[name]} {name.replace('_', ' ')}" for name in ("without_truth", "without_mask")]
        lines += [f"not scored: {line}" for line in result["unreadable"]]
        lines += ["lowest IoU:", *(f"  {item['iou']:.3f}  {item['mask']}" for item in result["worst"])]
        return "\n".join(lines)


class MasksShow(Command):
    """Write a contact sheet of masks, the most suspicious first."""

    name = "show"

    def arguments(self, parser: Parser) -> None:
        _add_suspicion(parser)
        parser.add_argument("--out", type=Path, default=Path("masks.png"), help="PNG to write; default %(default)s")
        parser.add_argument(
            "--images", dest="shown", type=count, default=48, help="number of images; default %(default)s"
        )

    def run(self, options: Options) -> Result:
        from bgsweep.workflows.review_masks import show_masks

        numbers = options.shown, options.second, options.rate
        return show_masks(options.source, options.masks, options.out, *numbers, columns(options))

    def show(self, result: Result) -> str:
        shown = f"the {result['shown']} most suspicious of {result['looked_at']} masks, and a random row"
        lines = [f"wrote {result['out']} ({shown}; {result['without_mask']} images have no mask)"]
        return "\n".join([*lines, *_compared(result), *(f"not shown: {line}" for line in result["unreadable"])])


class MasksReview(Command):
    """Write an HTML page to mark bad masks on."""

    name = "review"

    def arguments(self, parser: Parser) -> None:
        _add_suspicion(parser)
        parser.add_argument("--out", type=Path, default=Path("review.html"), help="page to write; default %(default)s")
        parser.add_argument("--count", type=count, default=150, help="most suspicious masks on it; default %(default)s")
        parser.add_argument(
            "--sample", type=count, default=60, help="masks on it drawn at random from all; default %(default)s"
        )

    def run(self, options: Options) -> Result:
        from bgsweep.workflows.review_masks import review_masks

        return review_masks(
            options.source,
            options.masks,
            options.out,
            options.count,
            options.sample,
            options.second,
            options.rate,
            columns(options),
        )

    def show(self, result: Result) -> str:
        from bgsweep.storage.uri import shell_quoted

        lines = [
            f"wrote {result['out']} ({result['bytes'] / 1e6:.1f} MB): the {result['listed']} most suspicious of "
            f"{result['looked_at']} masks and {result['sampled']} drawn at random from {result['images']}",
            *_compared(result),
            "open it in a browser, mark bad masks, download the JSON, then: "
            f"bgsweep masks drop {shell_quoted(result['masks'])} review.json",
        ]
        return "\n".join([*lines, *(f"not shown: {line}" for line in result["unreadable"])])


class MasksDrop(Command):
    """Move masks that were marked as bad aside, or replace them."""

    name = "drop"

    def arguments(self, parser: Parser) -> None:
        parser.add_argument("masks", help="folder or URI of the masks that were reviewed")
        parser.add_argument("review", type=Path, help="JSON that the page of `masks review` wrote")
        parser.add_argument("--replace", metavar="MASKS", help="folder or URI of other masks to put in their place")
        parser.add_argument("--aside", help="folder or URI to move bad masks to; default: MASKS-dropped")

    def run(self, options: Options) -> Result:
        from bgsweep.workflows.review_masks import drop_masks

        return drop_masks(options.masks, options.review, options.replace, options.aside)

    def show(self, result: Result) -> str:
        done = (
            f"{result['replaced']} bad masks replaced"
            if result["replaced"]
            else f"{result['dropped']} bad masks dropped"
        )
        earlier = f", {result['earlier']} were before" if result["earlier"] else ""
        lines = [
            f"{done}{earlier}; they lie in {result['aside']} ({result['good']} good, {result['unmarked']} unmarked)"
        ]
        for key, words in (("share", "all masks"), ("share_unlisted", "the masks that were not listed as suspicious")):
            if found := result[key]:
                bounds = f"95 %: {100 * found['lower']:.0f} to {100 * found['upper']:.0f} %"
                lines.append(
                    f"bad among {words}: {100 * found['share']:.0f} % ({bounds}), {found['bad']} of "
                    f"{found['marked']} drawn at random"
                )
        if result["sample_unmarked"]:
            lines.append(f"unmarked in the random sample: {result['sample_unmarked']}; these shares may be off")
        if result["too_many"]:
            lines.append(
                "more than a tenth of the images have no mask now, which training refuses; give others by --replace"
            )
        return "\n".join(lines)


def _add_suspicion(parser: Parser) -> None:
    """`IMAGES MASKS --second --rate`: the masks to rate, and how."""
    parser.add_argument("source", metavar="images", help="folder or URI of images, or a CSV, tar, … file")
    parser.add_argument("masks", help="folder or URI of their masks")
    add_columns(parser)
    parser.add_argument(
        "--second",
        metavar="METHOD",
        default="u2netp",
        help="method to compare masks with (u2netp, fusion, rbd, mbd, grabcut), a folder of its masks, or none; "
        "default %(default)s",
    )
    parser.add_argument(
        "--rate", type=count, default=2000, metavar="N", help="masks to rate, evenly spaced; default %(default)s"
    )


def _compared(result: Result) -> list[str]:
    return [f"compared with masks by {result['second']}"] if result["second"] else []


COMMANDS = (
    Group(
        "masks",
        "make foreground masks or import them, train a network for them, score, show and review them",
        (MasksMake(), MasksImport(), MasksTrain(), MasksScore(), MasksShow(), MasksReview(), MasksDrop()),
    ),
)
