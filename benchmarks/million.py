"""The start and the memory of training at ImageNet's size: folders and packs, first and second start.

    python benchmarks/million.py [--images 1281167] [--pack 1281167 10000000] [--hard] [--before CHECKOUT]
                                [--record] [--json]

Images and masks are symbolic links to a few files in 1,000 class folders (two inodes an image, removed at the end;
`--hard`: hard links, which a version that follows symbolic links does not take for one file), or packs whose index
names so many records of one shard. Each row is a fresh process, which opens the splits, holds
validation and test out, and makes a batch with two loader processes. Their memory is given beyond that of the same
processes with the embedded sample (private pages: USS). `--before` measures another checkout of bgsweep beside it.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import markdown, parser_of, report
from made_images import make_images

from bgsweep.data.datasets.pack_writer import make_pack

DISTINCT, CLASSES = 64, 1000
PROBE = """
import json, sys, time
began = time.perf_counter()
import psutil
from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config import Background, Data, Views
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.data.loader import Batches
from bgsweep.data.splits import open_sources

def main():
    data = json.loads(sys.argv[1])
    imported = time.perf_counter()
    if data is None:
        train = EmbeddedSample("train")
    else:
        train = open_sources(Data(train="train", validation=None, test=None, **data))[0]["train"]
    opened = time.perf_counter()
    batches = Batches(train, ViewPipeline(Views(), Background(remove=0.2, random=0.2)), 64, seed=0, workers=2)
    following = batches.epoch(0)
    next(following)
    first = time.perf_counter()
    for _ in range(4):
        next(following)
    own = psutil.Process()
    loaders = [each for each in own.children(recursive=True) if not each.children() and each.memory_info().rss > 150e6]
    private = sorted(each.memory_full_info().uss for each in loaders)
    print(json.dumps([imported - began, opened - imported, first - opened, own.memory_full_info().uss, private[-1]]))

if __name__ == "__main__":
    main()
"""


def link(
    sources: tuple[Path, Path],
    folder: Path,
    count: int,
    split: str = "train",
    first: int = 0,
    classes: int = CLASSES,
    make: Callable[[str, Path], None] = os.symlink,
) -> dict[str, str]:
    """Trees of so many links to images and masks; their numbers begin with `first`."""
    names = sorted(path.relative_to(sources[0]).with_suffix("").as_posix() for path in sources[0].rglob("*.jpg"))
    for kind, source, suffix in zip(("images", "masks"), sources, (".jpg", ".png"), strict=True):
        targets = [f"{source}/{name}{suffix}" for name in names]
        folders = [folder / kind / split / f"n{number:08d}" for number in range(classes)]
        for place in folders:
            place.mkdir(parents=True)
        for number in range(first, first + count):
            name = f"{folders[number % classes].name}_{number // classes:06d}{suffix}"
            make(targets[number % len(targets)], folders[number % classes] / name)
    return {kind: str(folder / kind) for kind in ("images", "masks")}


def synthetic_pack(pack: Path, out: Path, count: int) -> dict[str, str]:
    """A pack whose index names so many records, all of them those of a small pack's first shard."""
    out.mkdir()
    manifest = json.loads((pack / "pack.json").read_text())
    os.link(pack / "shard-000000.tar", out / "shard-000000.tar")
    small = np.load(pack / "index.npz")
    rows = np.arange(count) % len(small["offset"])
    a_class = -(-count // CLASSES)
    names = (f"train/n{number // a_class:08d}/{number:09d}.jpg" for number in range(count))
    arrays = {name: small[name][rows] for name in small.files if name != "names"}
    np.savez(out / "index.npz", names=np.frombuffer("\0".join(names).encode(), np.uint8), **arrays)
    with (out / "index.npz").open("rb") as file:
        manifest["index"] = hashlib.file_digest(file, "sha256").hexdigest()
    digests = manifest["splits"]["."]["digests"]
    split = {"first": 0, "images": count, "digests": digests}
    manifest |= {"shards": manifest["shards"][:1], "starts": [0], "splits": {".": split, "train": split}}
    (out / "pack.json").write_text(json.dumps(manifest))
    return {"pack": str(out)}


def probe(data: dict[str, str] | None, cache: Path, checkout: str | None = None) -> list[float]:
    """Seconds to import, to open and to the first batch; private bytes of this process and of a loader process."""
    environment = os.environ | {"BGSWEEP_CACHE": str(cache)} | ({"PYTHONPATH": checkout} if checkout else {})
    with tempfile.NamedTemporaryFile("w", suffix=".py", dir=cache) as script:
        script.write(PROBE)
        script.flush()
        command = [sys.executable, script.name, json.dumps(data)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--images", type=int, default=1_281_167, help="links of each kind; 0 leaves the folders out")
    parser.add_argument("--links", type=Path, help="trees that are there: a folder of images/ and masks/")
    parser.add_argument("--pack", type=int, nargs="*", default=[1_281_167, 10_000_000], help="entries of packs")
    parser.add_argument("--hard", action="store_true", help="hard links")
    parser.add_argument("--before", help="another checkout of bgsweep")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        sources = make_images(folder / "distinct", DISTINCT)
        sets: dict[str, dict[str, str]] = {}
        if options.links:
            sets["folders"] = {kind: str(options.links / kind) for kind in ("images", "masks")}
        elif options.images:
            sets[f"folders, {options.images:,}"] = link(
                sources, folder, options.images, make=os.link if options.hard else os.symlink
            )
        if options.pack:
            images, masks = map(str, sources)
            make_pack(images, masks, str(folder / "small"))
        for count in options.pack:
            sets[f"pack, {count:,}"] = synthetic_pack(folder / "small", folder / f"pack-{count}", count)
        for version, checkout in (("before", options.before), ("after", None)):
            if version == "before" and not checkout:
                continue
            cache = folder / f"cache-{version}"
            cache.mkdir()
            base = probe(None, cache, checkout)
            for name, data in sets.items():
                for start in ("first", "second"):
                    values = probe(data, cache, checkout)
                    own, loader = (values[place] - base[place] for place in (3, 4))
                    found[f"{version}, {name}, {start}"] = [*values[:3], own, loader]
                    times = [f"{value:.1f}" for value in values[1:3]]
                    rows.append([version, name, start, *times, f"{own / 1e6:.0f}", f"{loader / 1e6:.0f}"])
                    print(rows[-1], flush=True)
    columns = ["bgsweep", "set", "start", "open, s", "first batch, s", "process, MB more", "loader process, MB more"]
    body = f"{markdown(columns, rows)}\n\nLoad {os.getloadavg()[1]:.1f}."
    report(options, "Start and memory at a million images", "python benchmarks/million.py", body, found)


if __name__ == "__main__":
    main()
