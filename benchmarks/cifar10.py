"""Methods on CIFAR-10 by published recipes, kNN beside the published curve, epoch by epoch.

    python benchmarks/cifar10.py DIR --out FOLDER [--methods moco_v2 byol swav] [--epochs 200] [--device auto]

DIR holds CIFAR-10 as its authors (and torchvision) give it, in cifar-10-batches-py or in DIR itself, or as images in
train/CLASS and test/CLASS. With `--masks DIR`, which mirrors the images (`bgsweep masks make`), the arm with background
augmentation runs too. MoCo-v2's curve is that of its authors' notebook
(one GPU, batch 512, K 4096, split BatchNorm, asymmetric, kNN with k 200 and T 0.1); the others are lightly's.
"""

from pathlib import Path
from typing import Any

from common import parser_of, report
from published import Recipe, arguments, body, conduct

KNN = {"k": 200, "temperature": 0.1}
_SGD = {"name": "sgd", "lr": 0.06, "momentum": 0.9, "weight_decay": 5e-4}
_VIEWS = {"size": 32, "scale": (0.08, 1.0), "jitter": (0.4, 0.4, 0.4, 0.1), "gray": 0.2, "blur": 0.0}
_COMMON = {
    "encoder": {"name": "resnet18", "stem": "small"},
    "training": {"batch_size": 512},
    "views": _VIEWS,
    "optimizer": _SGD,
}
_CURVE = {
    **{1: 0.3198, 2: 0.3352, 3: 0.3471, 4: 0.3698, 5: 0.3795, 6: 0.3987, 8: 0.4418, 10: 0.4803, 15: 0.5484, 20: 0.6138},
    **{30: 0.6705, 40: 0.7132, 50: 0.7330, 75: 0.7593, 100: 0.7806, 150: 0.8118, 200: 0.8258},
}
RECIPES = {
    "moco_v2": Recipe(
        _COMMON
        | {"method": {"name": "moco_v2", "queue_size": 4096, "temperature": 0.1, "momentum": 0.99, "split_bn": 8}},
        {200: _CURVE},
        False,
        "the notebook has one linear layer as head, and takes kNN on its output",
    ),
    # Their loss is half the negative cosine of each direction, ours 2 - 2 cos: with a quarter of the rate and four
    # times the decay SGD takes the same steps.
    "byol": Recipe(
        _COMMON
        | {
            "method": {"name": "byol", "momentum": 0.99, "hidden_dim": 1024},
            "optimizer": {**_SGD, "lr": 0.06, "weight_decay": 2e-3},
        },
        {200: {200: 0.868}, 800: {800: 0.910}},
        True,
        "the target's momentum rises to 1",
    ),
    "swav": Recipe(
        _COMMON
        | {
            "method": {"name": "swav", "prototypes": 512, "hidden_dim": 512, "freeze_prototypes": 0},
            "views": {**_VIEWS, "scale": (0.14, 1.0), "jitter": (0.64, 0.64, 0.64, 0.16)},
            "optimizer": {"name": "adamw", "lr": 4e-3, "weight_decay": 1e-6},
        },
        {200: {200: 0.842}, 800: {800: 0.884}},
        True,
        "AdamW instead of Adam; two crops, as there",
    ),
}


def splits(root: Path, masks: Path | None) -> Any:
    """All training images, and the test images, on which the published values were measured."""
    from bgsweep.config import Data
    from bgsweep.data import Splits
    from bgsweep.data.splits import open_split

    data = Data(images=str(root), masks=None if masks is None else str(masks))
    train = open_split(data, "train", None)
    test = open_split(data.model_copy(update={"masks": None}), "test", train.classes)
    return Splits(train, test, test)


def main(words: list[str] | None = None) -> list[dict[str, Any]]:
    parser = parser_of(__doc__ or "")
    parser.add_argument("dir", type=Path)
    parser.add_argument("--masks", type=Path, help="folder of foreground masks that mirrors the images")
    arguments(parser, RECIPES, epochs=200)
    options = parser.parse_args(words)
    if options.epochs == 200 and options.every is None:
        options.every = 5
    found = conduct(options, RECIPES, splits(options.dir, options.masks), KNN)
    note = "Published: MoCo-v2 epoch by epoch; BYOL and SwAV as maxima over the epochs of one run."
    report(options, "CIFAR-10", "python benchmarks/cifar10.py DIR", body(found, RECIPES, note), found)
    return found


if __name__ == "__main__":
    main()
