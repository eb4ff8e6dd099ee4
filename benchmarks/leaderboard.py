"""Encoders by how much they lean on backgrounds, from records of `bgsweep audit`.

    python benchmarks/leaderboard.py run torchvision:resnet50 --name "ResNet-50, supervised" --store STORE
    python benchmarks/leaderboard.py page

`run` audits an encoder on the images that come with bgsweep (or on --images and --masks) and writes a record, a JSON
file, into benchmarks/leaderboard. `page` writes docs/leaderboard.md from all records. Records are comparable if they
have the same protocol: the same images, masks, sample, seed and measures; its digest is in each.
"""

import argparse
import hashlib
import json
import re
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from common import machine, markdown

from bgsweep import __version__
from bgsweep.data.datasets.bundled import ARCHIVE
from bgsweep.evaluation.audit import backgrounds, composites, groups, noise
from bgsweep.evaluation.audit.measure import Measure
from bgsweep.storage.atomic import write_whole
from bgsweep.workflows.audit import audit

ROOT = Path(__file__).parents[1]
RECORDS, PAGE = Path(__file__).parent / "leaderboard", ROOT / "docs" / "leaderboard.md"
MEASURES: tuple[Measure, ...] = (backgrounds.MEASURE, composites.MEASURE, groups.MEASURE, noise.MEASURE)
COLUMNS = {
    "accuracy": ("variants", "linear/original"),
    "BG-Gap": ("variants", "linear/bg_gap"),
    "BG-Gap, kNN": ("variants", "knn/bg_gap"),
    "bg_share": ("composites", "bg_share"),
    "fg_share": ("composites", "fg_share"),
    "challenge": ("composites", "challenge"),
    "worst group": ("groups", "worst_group"),
    "RFS": ("noise", "rfs"),
}
"""Column of the page: measure and value of an audit."""
LIMIT, SEED = 300, 0
_PER_CENT = {"accuracy", "BG-Gap", "BG-Gap, kNN", "challenge", "worst group"}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="audit an encoder and write its record")
    run.add_argument("model", help="as for `bgsweep audit`")
    run.add_argument("--name", required=True, help="the encoder's name on the page")
    run.add_argument("--store", type=Path, default=Path("bgsweep_runs"), help="as for `bgsweep audit`")
    run.add_argument("--images", type=Path, help="folder of images; default: those that come with bgsweep")
    run.add_argument("--masks", type=Path, help="folder of their masks")
    run.add_argument("--limit", type=int, default=LIMIT, help="largest number of images; default %(default)s")
    for each in (run, commands.add_parser("page", help="write the page from all records")):
        each.add_argument("--records", type=Path, default=RECORDS, help="folder of the records")
        each.add_argument("--out", type=Path, default=PAGE, help="page that is written")
    options = parser.parse_args(arguments)
    if options.command == "run":
        found = record(options.model, options.name, options.store, options.images, options.masks, options.limit)
        file = options.records / f"{re.sub(r'[^a-z0-9]+', '-', options.name.lower()).strip('-')}.json"
        write_whole(file, json.dumps(found, indent=1).encode() + b"\n")
        print(file)
    write_whole(options.out, page(read(options.records)).encode())
    print(options.out)


def record(model: str, name: str, store: Path, images: Path | None, masks: Path | None, limit: int) -> dict[str, Any]:
    """Audit an encoder; the record has no path of this machine."""
    if images is None:
        images, masks = _bundled(store)
    with tempfile.TemporaryDirectory() as made:
        found = audit(
            [model], images, masks, Path(made) / "audit.html", store, limit, SEED, MEASURES, full=True, precision="fp32"
        )
    about, (one,) = found["images"], found["models"]
    protocol = {
        "measures": [each.name for each in MEASURES],
        "images": "bgsweep's bundled images" if images.parent.name == "bundled" else images.name,
        **{key: about[key] for key in ("digests", "classes", "probe", "audited", "usable", "seed")},
    }
    return {
        "name": name,
        "network": one["origin"].get("network", "unknown"),
        "weights": one["digest"],
        "protocol": protocol | {"digest": digest_of(protocol)},
        "date": str(date.today()),
        "machine": machine(),
        "bgsweep": __version__,
        "seconds": sum(each["models"][0]["seconds"] for each in found["measures"]),
        "values": {each["name"]: {row["name"]: row["models"][0] for row in each["rows"]} for each in found["measures"]},
    }


def digest_of(protocol: Mapping[str, Any]) -> str:
    """Digest of all that makes values comparable."""
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:16]


def read(folder: Path) -> list[dict[str, Any]]:
    """All records of a folder."""
    return [json.loads(file.read_bytes()) for file in sorted(folder.glob("*.json"))]


def page(records: Sequence[Mapping[str, Any]]) -> str:
    """The page: a table for each protocol, encoders with the smallest BG-Gap first."""
    parts = [_HEAD]
    for digest in dict.fromkeys(each["protocol"]["digest"] for each in records):
        rows = [each for each in records if each["protocol"]["digest"] == digest]
        protocol = rows[0]["protocol"]
        parts.append(
            f"## {protocol['images']}\n\n{protocol['audited']} images of {protocol['classes']} classes are audited, "
            f"{protocol['usable']} of them show foreground and background; a linear probe trains on "
            f"{protocol['probe']} others. Protocol `{digest}`.\n"
        )
        parts.append(markdown(["encoder", *COLUMNS], [_row(each) for each in sorted(rows, key=_gap)]) + "\n")
        parts.append("\n".join(f"- {each['name']}: {_origin(each)}" for each in rows) + "\n")
    return "\n".join(parts)


def _gap(one: Mapping[str, Any]) -> float:
    cell = _cell(one, "BG-Gap")
    return float("inf") if cell is None or cell["value"] is None else float(cell["value"])


def _cell(one: Mapping[str, Any], column: str) -> Mapping[str, Any] | None:
    measure, name = COLUMNS[column]
    cell: Mapping[str, Any] | None = one["values"].get(measure, {}).get(name)
    return cell


def _row(one: Mapping[str, Any]) -> list[str]:
    return [one["name"], *(_shown(_cell(one, column), column in _PER_CENT) for column in COLUMNS)]


def _shown(cell: Mapping[str, Any] | None, per_cent: bool) -> str:
    if cell is None or cell["value"] is None:
        return "none"
    factor, digits = (100, 1) if per_cent else (1, 2)
    value, *limits = (
        f"{factor * cell[key]:.{digits}f}" for key in ("value", "lower", "upper") if cell[key] is not None
    )
    return f"{value} [{', '.join(limits)}]" if limits else value


def _origin(one: Mapping[str, Any]) -> str:
    taken = f"{one['seconds']:.0f} s" if one["seconds"] else "earlier"
    return f"{one['network']}, weights `{one['weights']}`; {one['machine']}; {taken}"


def _bundled(store: Path) -> tuple[Path, Path]:
    """The images that come with bgsweep, as folders, and their masks."""
    folder = store / "bundled"
    if not folder.is_dir():
        with zipfile.ZipFile(ARCHIVE) as archive:
            archive.extractall(folder)
    return folder / "images", folder / "masks"


_HEAD = """# Encoders by their reliance on backgrounds

Made by `benchmarks/leaderboard.py` from the records in `benchmarks/leaderboard`, each of a run of
[`bgsweep audit`](audit.md); what the columns mean stands there. Values but the shares and RFS are in %, with 95 %
intervals over images. A small BG-Gap means little where the accuracy is low: what recognizes nothing has no gap.

Add an encoder whose weights you have, and open a pull request with its record:

    python benchmarks/leaderboard.py run torchvision:resnet50 --name "ResNet-50, supervised (torchvision V1)"
    python benchmarks/leaderboard.py run timm:vit_small_patch14_dinov2.lvd142m --name "DINOv2 ViT-S/14"

**The images below are few and small** (garments, 10 classes): the intervals are wide, and an order of encoders on them
need not be that on ImageNet-9. `--images` and `--masks` make a table of other images. Seconds below were taken on busy
machines, where many other programs ran.
"""


if __name__ == "__main__":
    main()
