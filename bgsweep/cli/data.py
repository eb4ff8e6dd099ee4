"""Commands about images and this machine: `preview`, `pack` and `doctor`."""

from pathlib import Path

from bgsweep.cli.common import Command, Options, Result, add_columns, add_config, add_store, columns, count
from bgsweep.cli.common import store_folder as folder
from bgsweep.cli.formatting import percentages, table
from bgsweep.cli.import_masks import add_mask_format, mask_format
from bgsweep.cli.parser import Parser


class Preview(Command):
    """Write an image of augmented views."""

    name = "preview"

    def arguments(self, parser: Parser) -> None:
        add_config(parser)
        add_store(parser)
        parser.add_argument("--out", type=Path, default=Path("preview.png"), help="PNG to write; default %(default)s")
        parser.add_argument("--images", type=count, default=6, help="number of images, one a row; default %(default)s")

    def run(self, options: Options) -> Result:
        from bgsweep.config import load, review

        config = load(options.file, options.overrides, searched=False)
        review(config)
        from bgsweep.workflows.preview import preview

        return preview(config, options.out, options.images)

    def show(self, result: Result) -> str:
        lines = [f"wrote {result['out']} ({result['images']} images)"]
        for key, words in (("shares", "views"), ("last_shares", "views of the last epoch")):
            if key in result:
                lines.append(f"{words}: {percentages(result[key])}")
        if result["foreground"]:
            lines.append(f"foreground area of a view: {percentages(result['foreground'])}")
        return "\n".join(lines)


class Pack(Command):
    """Write images and masks into a few large files."""

    name = "pack"

    def arguments(self, parser: Parser) -> None:
        parser.add_argument(
            "images", help="folder that holds the splits, a URI such as s3://bucket/folder, or a CSV, tar, … file"
        )
        parser.add_argument(
            "masks",
            help="folder or URI of masks, in the same subfolders; `alpha`: the images' own alpha channel; `included`: "
            "those in the file of the images",
        )
        parser.add_argument("--out", required=True, help="folder or URI to write, which must not exist")
        parser.add_argument(
            "--short-side",
            type=count,
            metavar="PIXELS",
            help="shrink larger images, and their masks, to this shorter side",
        )
        parser.add_argument("--max-side", type=count, metavar="PIXELS", help="the same for the longer side")
        parser.add_argument("--quality", type=count, help="of the JPEGs of shrunk images; default 90")
        add_mask_format(parser)
        add_columns(parser)

    def run(self, options: Options) -> Result:
        from bgsweep.data.datasets.pack_size import PackSize
        from bgsweep.data.datasets.pack_writer import make_pack

        size = PackSize(options.short_side, options.max_side, options.quality)
        form, names = mask_format(options), columns(options)
        return make_pack(options.images, options.masks, options.out, mask_format=form, columns=names, size=size)

    def show(self, result: Result) -> str:
        from bgsweep.data.missing_masks import KEPT
        from bgsweep.storage.uri import shell_quoted

        size = f"{result['bytes'] / 1e6:.1f} MB"
        lines = [f"{result['images']} images in {result['shards']} shards, {size}: {result['out']}"]
        if result["shrunk"]:
            lines.append(f"  {result['shrunk']} images shrunk and encoded anew as JPEGs; the others are unchanged")
        if result["missing_masks"]:
            lines.append(f"  {result['missing_masks']}; {KEPT}")
        lines += [f"  image or mask cannot be read, skipped in training: {name}" for name in result["unreadable"]]
        return "\n".join([*lines, f"to train from it: data.pack={shell_quoted(result['out'])}"])


class Doctor(Command):
    """Check this machine, and what a file needs."""

    name = "doctor"

    def arguments(self, parser: Parser) -> None:
        parser.add_argument("file", nargs="?", type=Path, help="YAML file whose data, device and tracking to check")
        add_store(parser)

    def run(self, options: Options) -> Result:
        from bgsweep.workflows.doctor import diagnose

        return diagnose(options.file, folder(options))

    def show(self, result: Result) -> str:
        rows = [
            ["ok" if check["ok"] else "--", check["name"], check["found"], "" if check["ok"] else check["fix"]]
            for check in result["checks"]
        ]
        return table([""] * 4, rows)


COMMANDS = (Preview(), Pack(), Doctor())
