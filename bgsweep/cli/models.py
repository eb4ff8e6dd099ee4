"""Commands about registered encoders."""

from typing import Any

from bgsweep.cli.common import Command, Options, Result, add_store, store
from bgsweep.cli.formatting import local_time, percent, table
from bgsweep.cli.parser import Parser

_LINEAGE = {
    "sweep": "sweep",
    "trial": "trial",
    "digest": "config",
    "images_digest": "data",
    "masks_digest": "masks",
    "git_commit": "commit",
}
_SCORES = {"test/knn/top1": "kNN %", "test/linear/top1": "linear %", "test/knn/bg_gap": "gap %"}


class Models(Command):
    """List registered encoders with their scores and lineage."""

    name = "models"

    def arguments(self, parser: Parser) -> None:
        parser.add_argument("name", nargs="?", help="registered model; default: all models")
        add_store(parser)

    def run(self, options: Options) -> Result:
        from bgsweep.tracking import tracking_uri
        from bgsweep.tracking.registry import models

        return models(tracking_uri(store(options)), options.name)

    def show(self, result: Result) -> str:
        """For each model a table of its versions, and below it why each has its alias."""
        pages = []
        for model in result["models"]:
            rows = [_version(each) for each in model["versions"]]
            header = ("version", "alias", *_SCORES.values(), *_LINEAGE.values(), "created")
            reasons = [f"{each['version']}  {each['reason']}" for each in model["versions"] if each["reason"]]
            pages.append("\n".join([table(header, rows, model["name"]), *reasons]))
        return "\n\n".join(pages) or "no registered model in this store"


def _version(version: dict[str, Any]) -> list[str]:
    numbers, lineage = version["numbers"], version["lineage"]
    return [
        str(version["version"]),
        ", ".join(version["aliases"]),
        *(percent(numbers.get(name)) for name in _SCORES),
        *(lineage.get(key, "")[: 8 if key == "git_commit" else None] for key in _LINEAGE),
        local_time(version["created"]),
    ]


class Promote(Command):
    """Make a registered version the champion by hand."""

    name = "promote"

    def arguments(self, parser: Parser) -> None:
        parser.add_argument("name", metavar="MODEL", help="registered model, as `bgsweep models` lists it")
        parser.add_argument("version", metavar="VERSION", help="version number, or an alias such as challenger")
        parser.add_argument("--alias", default="champion", help="alias to give it; default %(default)s")
        add_store(parser)

    def run(self, options: Options) -> Result:
        from bgsweep.tracking import tracking_uri
        from bgsweep.tracking.registry import promote

        return promote(tracking_uri(store(options)), options.name, options.version, options.alias)

    def show(self, result: Result) -> str:
        before = "none" if result["before"] is None else f"version {result['before']}"
        return f"{result['name']} version {result['version']} is now {result['alias']} (before: {before})"


COMMANDS = (Models(), Promote())
