"""Two views of MoCo-v2's recipe by other libraries, for `pipeline.py`: from the same files, to batches.

Each library's own classes, in the order of its own recipes, at MoCo-v2's probabilities and strengths (crops of .2 to 1,
jitter .4, .4, .4, .1 at .8, grey .2, blur of sigma .1 to 2 at .5, flip .5), so that all rows do the same work. Two of
the libraries import much that views do not need, and one asks for a torch of 2021: of these only the module of
transforms is loaded. A library that is not installed is left out, with a line that says how to install it.

FFCV has no row: it reads files of its own, and its published source needs the headers of OpenCV and libturbojpeg.
"""

import importlib
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import PIL.Image
import torch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
JITTER, SCALE, SIGMA = (0.4, 0.4, 0.4, 0.1), (0.2, 1.0), (0.1, 2.0)
Views = Callable[[list[Path]], None]
"""Makes a batch of two views of each file."""


def torchvision_v2() -> Views:
    """uint8 tensors all the way, as its documentation recommends; a blur of 23 taps, as SimCLR's."""
    from torchvision.io import decode_jpeg, read_file
    from torchvision.transforms import v2

    view = v2.Compose(
        [
            v2.RandomResizedCrop(224, scale=SCALE, antialias=True),
            v2.RandomApply([v2.ColorJitter(*JITTER)], p=0.8),
            v2.RandomGrayscale(p=0.2),
            v2.RandomApply([v2.GaussianBlur(23, SIGMA)], p=0.5),
            v2.RandomHorizontalFlip(),
        ]
    )

    def batch(files: list[Path]) -> None:
        images = [decode_jpeg(read_file(str(file))) for file in files]
        for _ in range(2):
            torch.stack([view(image) for image in images])

    return batch


def solo_learn() -> Views:
    """`ImagenetTransform` on Pillow's images, twice by `NCropAugmentation`."""
    transforms: Any = module_alone("solo.utils.pretrain_dataloader")
    twice = transforms.NCropAugmentation(
        transforms.ImagenetTransform(*JITTER, gaussian_prob=0.5, min_scale=SCALE[0]), num_crops=2
    )

    def batch(files: list[Path]) -> None:
        stacked([twice(opened(file)) for file in files])

    return batch


def stable_pretraining() -> Views:
    """`MultiViewTransform` of two pipelines as in its examples, on Pillow's images."""
    t: Any = module_alone("stable_pretraining.data.transforms")

    def view() -> Any:
        return t.Compose(
            t.RGB(),
            t.RandomResizedCrop((224, 224), scale=SCALE),
            t.ColorJitter(*JITTER, p=0.8),
            t.RandomGrayscale(p=0.2),
            t.PILGaussianBlur(SIGMA, p=0.5),
            t.RandomHorizontalFlip(p=0.5),
            t.ToImage(mean=MEAN, std=STD),
        )

    both = t.MultiViewTransform([view(), view()])

    def batch(files: list[Path]) -> None:
        samples = [both({"image": opened(file)})["views"] for file in files]
        stacked([[sample["image"] for sample in views] for views in samples])

    return batch


def kornia() -> Views:
    """Crops image by image, since sizes differ; the rest on the batch of both views, each image by its own draws."""
    from torchvision.io import decode_jpeg, read_file

    own: Any = importlib.import_module("kornia.augmentation")
    crop = own.RandomResizedCrop((224, 224), scale=SCALE)
    rest = torch.nn.Sequential(
        own.ColorJitter(*JITTER, p=0.8),
        own.RandomGrayscale(p=0.2),
        own.RandomGaussianBlur((23, 23), SIGMA, p=0.5),
        own.RandomHorizontalFlip(p=0.5),
        own.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    )

    def batch(files: list[Path]) -> None:
        images = [decode_jpeg(read_file(str(file))).float().div(255)[None] for file in files]
        rest(torch.cat([crop(image) for _ in range(2) for image in images]))

    return batch


PEERS: dict[str, tuple[str, str, Callable[[], Views]]] = {
    "torchvision v2, uint8 tensors": ("torchvision", "torchvision", torchvision_v2),
    "solo-learn ImagenetTransform": ("solo", "--no-deps solo-learn", solo_learn),
    "stable-pretraining MultiViewTransform": (
        "stable_pretraining",
        "--no-deps stable-pretraining",
        stable_pretraining,
    ),
    "kornia on the CPU": ("kornia", "--no-deps kornia kornia-rs", kornia),
}
"""Each peer's module, what pip installs it by, and its views."""


def peers() -> tuple[dict[str, Views], list[str]]:
    """The views of the libraries that are installed, and a line for each that is not."""
    there = {name: make() for name, (module, _, make) in PEERS.items() if find_spec(module)}
    return there, [
        f"{name}: left out; `pip install {given}` adds it" for name, (_, given, _) in PEERS.items() if name not in there
    ]


def module_alone(name: str) -> ModuleType:
    """Import a module without running its packages' own `__init__`, which bring in what it does not need."""
    parts = name.split(".")
    for count in range(1, len(parts)):
        parent = ".".join(parts[:count])
        if parent not in sys.modules:
            spec = find_spec(parent)
            assert spec is not None, parent
            package = ModuleType(parent)
            package.__path__ = list(spec.submodule_search_locations or [])
            sys.modules[parent] = package
    return importlib.import_module(name)


def opened(file: Path) -> PIL.Image.Image:
    with PIL.Image.open(file) as image:
        return image.convert("RGB")


def stacked(samples: list[list[torch.Tensor]]) -> None:
    """Put the views of several images together, as a loader does."""
    for column in zip(*samples, strict=True):
        torch.stack(column)
