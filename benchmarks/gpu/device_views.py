"""Speed of whole views that a GPU makes from the bytes of JPEGs on: decoding, crops, backgrounds, colors.

It decides whether `data.decode: device` is worth building. Each image is cropped by kernels of its own, since sizes
differ; masks are decoded on the CPU beforehand, since they are small and packed. torchvision 0.29 announces the end of
its decoders in favor of torchcodec's: what is built must call those.
"""

import random
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.rows import Skipped, Values
from benchmarks.gpu.timing import seconds_of
from benchmarks.gpu.workloads import Scale
from bgsweep.augment.color import Colors
from bgsweep.augment.color_batched import render
from bgsweep.augment.crop_window import draw_window
from bgsweep.images.decoding import read_gray
from bgsweep.transfer import send

RANDOM = 0.2
"""Share of the views that get another image's background."""


def measure(images: Path, masks: Path, scale: Scale, device: torch.device) -> Values:
    """Images a second of each stage, two views an image, and of all of them in turn."""
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    found = list(islice(sorted((images / "train").rglob("*.jpg")), scale.pick(256, 4)))
    files = [read_file(str(file)) for file in found]
    outlines = [_mask_of(file, images, masks) for file in found]

    def decoded() -> list[Tensor]:
        return decode_jpeg(files, mode=ImageReadMode.RGB, device=device)

    try:
        pixels = decoded()
    except RuntimeError as error:
        raise Skipped(f"torchvision has no GPU decoder here: {str(error).splitlines()[0]}") from error
    size = scale.pick(224, 24)
    cropped = _views(pixels, outlines, size)
    stages: dict[str, Callable[[], object]] = {
        "decoding": decoded,
        "crops_and_backgrounds": lambda: _views(pixels, outlines, size),
        "colors": lambda: _colored(cropped),
        "all": lambda: _colored(_views(decoded(), outlines, size)),
    }
    times = seconds_of(list(stages.values()), device, 3, scale.pick(3, 1))
    return {f"images_per_second_{name}": len(files) / min(each) for name, each in zip(stages, times, strict=True)}


def _mask_of(file: Path, images: Path, masks: Path) -> Tensor:
    path = (masks / file.relative_to(images)).with_suffix(".png")
    return torch.from_numpy(np.ascontiguousarray(read_gray(path.read_bytes(), path.name)))


def _views(pixels: list[Tensor], masks: list[Tensor], size: int) -> Tensor:
    """Two views an image, (2 B, size, size, 3), a share of them on the next image's pixels."""
    draw, views = random.Random(0), list[Tensor]()
    for index, image in enumerate(pixels):
        for _ in range(2):
            window = draw_window(*image.shape[1:], (0.2, 1.0), (3 / 4, 4 / 3), draw)
            view = window.of(image.permute(1, 2, 0))
            if draw.random() < RANDOM:
                foreground = send(window.of(masks[index]), image.device) > 127
                behind = _resized(pixels[index - 1].permute(1, 2, 0), view.shape[0], view.shape[1])
                view = torch.where(foreground[..., None], view, behind)
            views.append(_resized(view, size, size))
    return torch.stack(views)


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    """A uint8 image (H, W, 3) in another size, antialiased."""
    planes = image.permute(2, 0, 1)[None].float()
    resized = F.interpolate(planes, (height, width), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).round_().to(torch.uint8)


def _colored(views: Tensor) -> Tensor:
    colors = Colors()
    rows = torch.tensor([colors.draw().row() for _ in range(len(views))])
    return render(views, rows, "exact")
