"""Methods on Imagenette at 128 px by a published recipe, with and without background augmentation, kNN beside theirs.

    python benchmarks/imagenette.py PATH --out FOLDER [--methods moco_v2 byol swav] [--epochs 200] [--device auto]

PATH is a folder with images/train, images/val, masks/train and masks/val, a folder for each class below, or an archive
(.tar.gz) of one. Recipe and values are those of lightly's Imagenette benchmark (docs of 2023, e8d317fc: ResNet-18 with
the standard stem, 128 px, batch 256, kNN with k 200 and T 0.1 on normalised features of the encoder, the maximum over
all epochs, one run). Interrupted runs go on from their last evaluation.
"""

import tarfile
import tempfile
from pathlib import Path
from typing import Any

from common import parser_of, report
from published import Recipe, arguments, body, conduct

KNN = {"k": 200, "temperature": 0.1}
_SGD = {"name": "sgd", "lr": 0.06, "momentum": 0.9, "weight_decay": 5e-4}
_VIEWS = {"size": 128, "scale": (0.08, 1.0), "jitter": (0.4, 0.4, 0.4, 0.1), "gray": 0.2, "blur": 0.5}
_COMMON = {"encoder": {"name": "resnet18"}, "training": {"batch_size": 256}, "views": _VIEWS, "optimizer": _SGD}
_SQUARED = "images were squashed to squares of 128 px before, not read at 160 px; blur is narrower"
# Their losses are means over both directions, here they are sums: with half the rate and twice the decay SGD takes the
# same steps.
_HALVED = {**_SGD, "lr": 0.03, "weight_decay": 1e-3}
# Their BYOL loss is half the negative cosine of each direction, ours 2 - 2 cos: four times the gradient.
_QUARTERED = {**_SGD, "lr": 0.015, "weight_decay": 2e-3}


def _values(at_200: float, at_800: float) -> dict[int, dict[int, float]]:
    return {200: {200: at_200}, 800: {800: at_800}}


RECIPES = {
    "moco_v2": Recipe(
        _COMMON
        | {
            "method": {"name": "moco_v2", "queue_size": 4096, "temperature": 0.1, "momentum": 0.99, "symmetric": True},
            "optimizer": _HALVED,
        },
        _values(0.786, 0.874),
        True,
        f"{_SQUARED}; both directions have the queue of before the step",
    ),
    "byol": Recipe(
        _COMMON | {"method": {"name": "byol", "momentum": 0.99}, "optimizer": _QUARTERED},
        _values(0.705, 0.887),
        True,
        f"{_SQUARED}; the target's momentum rises to 1",
    ),
    "swav": Recipe(
        _COMMON
        | {
            "method": {"name": "swav", "freeze_prototypes": 0},
            "views": {
                **_VIEWS,
                "scale": (0.14, 1.0),
                "small_crops": 6,
                "small_size": 64,
                "jitter": (0.64, 0.64, 0.64, 0.16),
            },
            "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 1e-6},
        },
        _values(0.861, 0.902),
        True,
        f"{_SQUARED}; AdamW instead of Adam",
    ),
}


def unpacked(path: Path, folder: Path) -> Path:
    """The folder with images/ and masks/ that a path names, or that the archive there holds."""
    root = path
    if path.is_file():
        if not any(folder.glob("*/images/train")):
            with tarfile.open(path) as archive:
                archive.extractall(folder, filter="data")
        root = next((each.parents[1] for each in folder.glob("*/images/train")), folder)
    if not (root / "images" / "train").is_dir():
        raise SystemExit(f"{path}: holds no images/train; give a folder with images/ and masks/, or an archive of one")
    return root


def splits(root: Path) -> Any:
    """Training and validation images, with masks where there are some; nothing is held out."""
    from bgsweep.data import Splits
    from bgsweep.data.datasets.folder import Folder

    masks = root / "masks" if (root / "masks").is_dir() else None
    train = Folder(root / "images", "train", masks)
    validation = Folder(root / "images", "val", masks, classes=train.classes)
    return Splits(train, validation, validation)


def main(words: list[str] | None = None) -> list[dict[str, Any]]:
    parser = parser_of(__doc__ or "")
    parser.add_argument("path", type=Path)
    arguments(parser, RECIPES, epochs=200)
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="imagenette-") as folder:
        found = conduct(options, RECIPES, splits(unpacked(options.path, Path(folder))), KNN)
    note = "Published: lightly's Imagenette benchmark, maxima over the epochs of one run: compare with `best so far`."
    report(options, "Imagenette, 128 px", "python benchmarks/imagenette.py PATH", body(found, RECIPES, note), found)
    return found


if __name__ == "__main__":
    main()
