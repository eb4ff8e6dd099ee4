"""Both ready methods over a folder of images with known masks: time, and agreement with those masks.

    python benchmarks/masks.py CLOTHING10 --weights u2netp.onnx --every 5 --record

CLOTHING10 holds images/train and masks/train. One process on one core, through the same call as
`bgsweep masks make --workers 1`. Seconds are those of the CPU, which other work on the machine changes little, with
the packages' imports in them.
"""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from common import markdown, parser_of, report

COLUMNS = (
    "method",
    "images",
    "CPU seconds",
    "images/s per core",
    "max F",
    "mean F",
    "MAE",
    "IoU",
    "empty",
    "tiny",
)


def subset(images: Path, every: int, folder: Path) -> int:
    """Copy every n-th image; how many there are."""
    chosen = sorted(path for path in images.rglob("*") if path.is_file())[::every]
    for path in chosen:
        copy = folder / path.relative_to(images)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return len(chosen)


def run(method: str, weights: str | None, images: Path, truth: Path, out: Path) -> dict[str, Any]:
    """Make masks and compare them."""
    from bgsweep.masks.score import score_trees
    from bgsweep.storage.tree import LocalTree
    from bgsweep.workflows.make_masks import make_masks

    began = time.process_time()
    made = make_masks(str(images), str(out), "rbd" if method == "rbd" else "u2net", weights, workers=1)
    seconds = time.process_time() - began
    scores, _ = score_trees(LocalTree(out), LocalTree(truth))
    measures = {key: scores[key] for key in ("max_f_beta", "mean_f_beta", "mae", "iou")}
    return {**made, **measures, "method": method, "cpu_seconds": seconds}


def row(result: dict[str, Any]) -> list[str]:
    """One line of the table."""
    scores = [f"{result[key]:.3f}" for key in ("max_f_beta", "mean_f_beta", "mae", "iou")]
    odd = [f"{100 * result['shares'][key]:.1f} %" for key in ("empty", "tiny")]
    speed = [str(result["made"]), f"{result['cpu_seconds']:.0f}", f"{result['made'] / result['cpu_seconds']:.1f}"]
    return [result["method"], *speed, *scores, *odd]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("clothing10", type=Path)
    parser.add_argument("--weights", default="u2netp", help="of U2-Net-P; fetched if no file is named")
    parser.add_argument("--every", type=int, default=1, help="take every n-th image")
    options = parser.parse_args()
    truth = options.clothing10 / "masks" / "train"
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        count = subset(options.clothing10 / "images" / "train", options.every, images)
        results = [
            run("rbd", None, images, truth, Path(folder, "rbd")),
            run("u2net (U2-Net-P)", options.weights, images, truth, Path(folder, "u2net")),
        ]
    title = f"Masks of {count} images of clothing10's training set, against those that come with it"
    command = f"python benchmarks/masks.py CLOTHING10 --every {options.every}"
    report(options, title, command, markdown(COLUMNS, [row(result) for result in results]), results)


if __name__ == "__main__":
    main()
