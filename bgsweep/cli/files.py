"""Commands that write files to start from: `new` and `schema`."""

import json
from pathlib import Path

from bgsweep.cli.common import Command, Options, Result, add_columns, columns
from bgsweep.cli.parser import Parser


class New(Command):
    """Write a YAML file to start from, for a folder of images or for the bundled ones."""

    name = "new"

    def arguments(self, parser: Parser) -> None:
        parser.add_argument("file", type=Path, help="YAML file to write, which must not exist")
        parser.add_argument(
            "--images", metavar="DIR", help="folder of images, or a CSV, tar, … file; default: those inside bgsweep"
        )
        parser.add_argument("--masks", metavar="DIR", help="their masks: a PNG for each image, in the same subfolders")
        add_columns(parser)
        parser.add_argument("--method", help="method to train; default moco_v2")
        parser.add_argument(
            "--for",
            dest="machine",
            choices=("laptop", "gpu", "cluster"),
            help="size of networks and batches; default: gpu if this machine has one, else laptop",
        )

    def run(self, options: Options) -> Result:
        from bgsweep.workflows.new_file import new_file

        given = options.images, options.masks, options.method, options.machine
        return new_file(options.file, *given, columns(options))

    def show(self, result: Result) -> str:
        lines = [f"wrote {result['file']}: {result['about']}", *(f"note: {line}" for line in result["notes"])]
        return "\n".join([*lines, "next:", *(f"  {command}" for command in result["next"])])


class Schema(Command):
    """Print the JSON Schema of the YAML files, for editors."""

    name = "schema"

    def arguments(self, parser: Parser) -> None:
        parser.add_argument("--suite", action="store_true", help="of the files of `evaluate --data`")
        parser.add_argument("--out", type=Path, help="file to write instead")

    def run(self, options: Options) -> Result:
        from bgsweep.config.schema import suite_schema, sweep_schema

        schema = suite_schema() if options.suite else sweep_schema()
        if options.out is None:
            return {"schema": schema}
        from bgsweep.storage.tree import write_file

        write_file(options.out, (json.dumps(schema, indent=1) + "\n").encode())
        return {"out": str(options.out)}

    def show(self, result: Result) -> str:
        return json.dumps(result["schema"], indent=1) if "schema" in result else f"wrote {result['out']}"


COMMANDS = (New(), Schema())
