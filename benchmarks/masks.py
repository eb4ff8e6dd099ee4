"""Mask methods on composites with exact masks and on clothing10: scores, and time.

    python benchmarks/masks.py COMPOSITES/report CLOTHING10 --record
    python benchmarks/masks.py COMPOSITES/report CLOTHING10 --set ECSSD ECSSD/images ECSSD/masks

COMPOSITES is what benchmarks/composites.py has written; no setting of any method was chosen by what is in `report`.
CLOTHING10 holds images/test and masks/test. --set adds one of your own, whose true masks are PNGs named as the images.
One process on one core, through the same call as `bgsweep masks make --soft --workers 1`; soft masks, since the maximum
over thresholds of F is of these. Seconds are those of the CPU, which other work on the machine changes little. What has
been made lies in --work and is not made again.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
from common import markdown, parser_of, report

MEASURES = ("max_f_beta", "mae", "iou")
GAUSSIAN = "centred Gaussian"


def subset(images: Path, every: int, folder: Path) -> None:
    """Link to every n-th image."""
    for path in sorted(path for path in images.rglob("*") if path.is_file())[::every]:
        link = folder / path.relative_to(images)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())


def gaussian(images: Path, out: Path) -> None:
    """The same mask for every image: what a method without eyes scores."""
    for path in sorted(path for path in images.rglob("*") if path.is_file()):
        width, height = PIL.Image.open(path).size
        rows, columns = (np.exp(-(np.linspace(-1, 1, length) ** 2) / 0.5) for length in (height, width))
        target = (out / path.relative_to(images)).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), np.rint(255 * np.outer(rows, columns)).astype(np.uint8))


def scored(method: Any, images: Path, truth: Path, out: Path) -> dict[str, Any]:
    """Make the masks of a set and compare them with the true ones."""
    from bgsweep.masks.score import score_trees
    from bgsweep.storage.tree import LocalTree
    from bgsweep.workflows.make_masks import make_masks

    timed, began = out.with_suffix(".json"), time.process_time()
    if method == GAUSSIAN:
        gaussian(images, out)
    else:
        make_masks(str(images), str(out), method, workers=1, soft=True)
    if not timed.exists():
        timed.write_text(json.dumps(time.process_time() - began), encoding="utf-8")
    scores, _ = score_trees(LocalTree(out), LocalTree(truth))
    return {"seconds": json.loads(timed.read_text(encoding="utf-8")), **scores}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("composites", type=Path)
    parser.add_argument("clothing10", type=Path)
    parser.add_argument("--set", nargs=3, action="append", default=[], metavar=("NAME", "IMAGES", "TRUTH"))
    parser.add_argument("--methods", nargs="+", default=[GAUSSIAN, "grabcut", "mbd", "rbd", "fusion", "network"])
    parser.add_argument(
        "--every", type=int, default=3, help="take every n-th image of clothing10 (default: %(default)s)"
    )
    parser.add_argument("--work", type=Path, help="folder of the masks; default: a temporary one")
    options = parser.parse_args()
    sets = {path.name: (path / "images", path / "truth") for path in sorted(options.composites.iterdir())}
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        images = Path(temporary, "images")
        subset(options.clothing10 / "images/test", options.every, images)
        sets["clothing10"] = (images, options.clothing10 / "masks/test")
        sets |= {name: (Path(own), Path(truth)) for name, own, truth in options.set}
        for method in options.methods:
            for name, (images, truth) in sets.items():
                out = (options.work or Path(temporary)) / method / name
                found.setdefault(method, {})[name] = scored(method, images, truth, out)
    rows = []
    for method, results in found.items():
        images = sum(result["images"] for result in results.values())
        cells = [" / ".join(f"{result[key]:.3f}" for key in MEASURES) for result in results.values()]
        rows.append([method, *cells, f"{1000 * sum(one['seconds'] for one in results.values()) / images:.0f}"])
    counts = [f"{name} ({next(iter(found.values()))[name]['images']})" for name in sets]
    title = "Mask methods on held-out composites and on clothing10: max F / MAE / IoU, and ms of a core per image"
    command = f"python benchmarks/masks.py COMPOSITES/report CLOTHING10 --every {options.every}"
    report(options, title, command, markdown(["method", *counts, "ms"], rows), found)


if __name__ == "__main__":
    main()
