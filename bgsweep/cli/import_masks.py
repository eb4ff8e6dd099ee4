"""`bgsweep masks import`, and the options that describe mask files."""

from typing import TYPE_CHECKING

from bgsweep.cli.common import Command, Options, Result, add_columns, columns
from bgsweep.cli.formatting import percentages
from bgsweep.cli.parser import Parser

if TYPE_CHECKING:
    from bgsweep.config import MaskFormat


def add_mask_format(parser: Parser) -> None:
    """Options that describe mask files, as `data.mask_format` does in a configuration."""
    parser.add_argument(
        "--pattern",
        help="name of an image's mask in the same subfolder, e.g. '{stem}_mask.png'; {stem} is the image's name "
        "without suffix, {name} with it; with a leading / the mask lies in the top folder",
    )
    parser.add_argument(
        "--foreground", nargs="+", metavar="ID", help="ids that are foreground, or `nonzero`: all but 0 and --void"
    )
    parser.add_argument("--void", nargs="+", metavar="ID", help="ids that are neither; they become background")
    parser.add_argument(
        "--channel", choices=("auto", "alpha", "rgb_id"), help="rgb_id: ids of R + 256 G + 65536 B; default auto"
    )


def mask_format(options: Options) -> "MaskFormat":
    """The format that these options describe."""
    from bgsweep.config import mask_format as validated

    foreground = "nonzero" if options.foreground == ["nonzero"] else options.foreground
    return validated(pattern=options.pattern, foreground=foreground, void=options.void, channel=options.channel)


class MasksImport(Command):
    """Convert masks in another form into 8-bit PNGs named as their images."""

    name = "import"

    def arguments(self, parser: Parser) -> None:
        parser.add_argument("images", help="folder of images, a URI such as s3://bucket/folder, or a CSV, tar, … file")
        parser.add_argument(
            "source", help="folder or URI of the masks, a COCO file, or `alpha`: the images' own alpha channel"
        )
        parser.add_argument("--out", required=True, help="folder or URI of the masks, in the images' subfolders")
        add_mask_format(parser)
        add_columns(parser)
        parser.add_argument(
            "--instances", choices=("union", "largest"), help="foreground of several masks of an image; default union"
        )
        parser.add_argument(
            "--categories", nargs="+", default=[], metavar="NAME", help="categories of a COCO file that are foreground"
        )

    def run(self, options: Options) -> Result:
        from bgsweep.workflows.import_masks import import_masks

        return import_masks(
            options.images,
            options.source,
            options.out,
            mask_format(options),
            options.instances,
            options.categories,
            columns(options),
        )

    def show(self, result: Result) -> str:
        lines = [
            f"{result['masks']} masks of {result['images']} images in {result['out']}, {result['made']} of them new",
            f"foregrounds: {percentages(result['shares'])}",
        ]
        if result["without_mask"]:
            lines.append(f"without mask: {result['without_mask']} images, such as {result['first_without']}")
        for key, how in (("turned", "turned as their images' EXIF orientations say"), ("scaled", "scaled by a pixel")):
            if result[key]:
                lines.append(f"{how}: {result[key]} masks")
        return "\n".join([*lines, *(f"not read: {item['reason']}" for item in result["unreadable"])])
