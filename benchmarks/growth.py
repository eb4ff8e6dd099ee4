"""The cost of opening many images: folders beside packs, at growing numbers.

    python benchmarks/growth.py [--counts 1000 10000 100000] [--record] [--json]

The images are links to a few files, under names of their own. Each set is opened in a fresh process, which then
makes one batch of views. The index is what is sent to a loader process when it begins, pickled.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import markdown, parser_of, report
from made_images import make_images

from bgsweep.data.datasets.pack_writer import make_pack

DISTINCT, CLASSES = 64, 100
PROBE = """
import json, pickle, sys, time
from pathlib import Path
import psutil
from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config import Background, Views
from bgsweep.data.datasets.folder import Folder
from bgsweep.data.loader import Batches
from bgsweep.data.datasets.pack import Pack
from bgsweep.training.run import limit_threads

limit_threads(1)
kind, images, masks, pack = sys.argv[1:]
began = time.perf_counter()
source = Folder(Path(images), ".", Path(masks)) if kind == "folders" else Pack(pack, ".")
opened = time.perf_counter() - began
held = len(pickle.dumps(source))
batches = Batches(source, ViewPipeline(Views(), Background(remove=0.2, random=0.2)), 64, seed=0)
began = time.perf_counter()
next(iter(batches.epoch(0)))
first = time.perf_counter() - began
print(json.dumps([opened, first, held, psutil.Process().memory_info().rss]))
"""


def link(sources: tuple[Path, Path], folder: Path, count: int) -> tuple[Path, Path]:
    """Trees of so many hard links to the images and masks."""
    names = sorted(path.relative_to(sources[0]).with_suffix("") for path in sources[0].rglob("*.jpg"))
    roots = folder / "images", folder / "masks"
    for root, source, suffix in zip(roots, sources, (".jpg", ".png"), strict=True):
        for number in range(CLASSES):
            (root / f"n{number:08d}").mkdir(parents=True)
        for number in range(count):
            label = f"n{number % CLASSES:08d}"
            os.link(source / f"{names[number % len(names)]}{suffix}", root / label / f"{label}_{number:06d}{suffix}")
    return roots


def probe(kind: str, images: Path, masks: Path, pack: Path) -> list[float]:
    """Seconds to open, seconds of the first batch, bytes that are sent to a loader process, resident bytes."""
    command = [sys.executable, "-c", PROBE, kind, str(images), str(masks), str(pack)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: list[float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    options = parser.parse_args()
    found: dict[str, Any] = {}
    rows = []
    with tempfile.TemporaryDirectory() as made:
        sources = make_images(Path(made) / "distinct", DISTINCT)
        for count in options.counts:
            folder = Path(made) / str(count)
            images, masks = link(sources, folder, count)
            make_pack(str(images), str(masks), str(folder / "pack"))
            for kind in ("folders", "packs"):
                opened, first, held, resident = probe(kind, images, masks, folder / "pack")
                found[f"{kind}_{count}"] = {"open_s": opened, "bytes_each": held / count, "resident_mb": resident / 1e6}
                cells = f"{opened:.2f}", f"{first:.2f}", f"{held / count:.0f}", f"{resident / 1e6:.0f}"
                rows.append([kind, f"{count:,}", *cells])
    columns = ["read from", "images", "open, s", "first batch of 64, s", "index, bytes each", "resident, MB"]
    body = f"{markdown(columns, rows)}\n\nLoad {os.getloadavg()[1]:.1f}."
    report(options, "Growth with the number of images", "python benchmarks/growth.py", body, found)


if __name__ == "__main__":
    main()
