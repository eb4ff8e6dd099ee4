"""kNN accuracy of training from a pack of training size and from the originals, seed by seed.

    python benchmarks/pack_accuracy.py IMAGES MASKS [--size 32] [--short-side 37] [--epochs 10] [--seeds 3] [--record]

MoCo-v2 with a narrow ResNet-10 and background augmentation. The pack's short side has the published ratio to the views
(256 to 224). Both runs of a seed have the same weights at first, and see the same order, crops and draws. Each trained
encoder is measured on the validation images of both sets, with their training images as neighbours; differences are
pack less originals, with Student's interval (95 %) over the seeds' pairs.
"""

import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from common import below, markdown, parser_of, report

from bgsweep.config import resolve
from bgsweep.data import open_splits
from bgsweep.data.datasets.pack_size import PackSize
from bgsweep.data.datasets.pack_writer import make_pack
from bgsweep.evaluation.bootstrap import paired_seeds
from bgsweep.training.run import Run, limit_threads

EXPERIMENT: dict[str, Any] = {
    "background": {"remove": 0.2, "random": 0.2},
    "method": {"queue_size": 1024, "hidden_dim": 256, "embedding_dim": 64, "momentum": 0.98},
    "encoder": {"name": "resnet10", "width": 16, "stem": "small"},
    "optimizer": {"lr": 0.1, "weight_decay": 5e-4, "warmup_epochs": 1},
    "workers": {"device": "cpu"},
}
ORIGINALS, PACK = "originals", "pack"


def trained(data: dict[str, dict[str, Any]], arm: str, size: int, epochs: int, seed: int) -> list[float]:
    """Train on one arm; give kNN accuracies, in percent, on the validation images of each."""
    experiment = EXPERIMENT | {
        "data": data[arm],
        "views": {"size": size, "blur": 0.0},
        "training": {"epochs": epochs, "batch_size": 128},
        "seed": seed,
    }
    run = Run(resolve({"experiment": experiment, "evaluate": {"every": epochs}}))
    while not run.finished:
        run.step_epoch()
    found = []
    for other in data.values():
        run.splits = open_splits(resolve({"experiment": experiment | {"data": other}}).experiment.data)
        found.append(100 * run.evaluate()["knn_top1"])
    return found


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("images")
    parser.add_argument("masks")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--short-side", type=int, default=37)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    limit_threads(1)
    accuracies: dict[str, list[list[float]]] = {ORIGINALS: [], PACK: []}
    with tempfile.TemporaryDirectory() as place:
        out = str(Path(place, "pack"))
        made = make_pack(options.images, options.masks, out, size=PackSize(options.short_side, None, 90))
        common = {"cache": True, "loader_workers": 0}
        data = {ORIGINALS: {"images": options.images, "masks": options.masks, **common}, PACK: {"pack": out, **common}}
        for seed in range(options.seeds):
            for arm, found in accuracies.items():
                found.append(trained(data, arm, options.size, options.epochs, seed))
                print(seed, arm, *(f"{value:.2f}" for value in found[-1]), flush=True)
    rows = []
    for arm, values in accuracies.items():
        rows.append([f"trained from {arm}", *(f"{mean(column):.2f}" for column in zip(*values, strict=True))])
    sides = list(zip(*(zip(*values, strict=True) for values in accuracies.values()), strict=True))
    differences = [paired_seeds(first, second) for first, second in sides]
    rows.append(
        ["pack less originals", *(f"{each.value:+.2f} [{each.lower:+.2f}, {each.upper:+.2f}]" for each in differences)]
    )
    body = markdown(["kNN, %", "validation images: originals", "from the pack"], rows)
    words = f"{options.size} px, short side {options.short_side}, quality 90, {made['images']} images of which "
    words += f"{made['shrunk']} are shrunk, {options.epochs} epochs, {options.seeds} seeds"
    body += below(words, accuracies)
    report(options, "kNN of a pack of training size", "python benchmarks/pack_accuracy.py", body, accuracies)


if __name__ == "__main__":
    main()
