"""Images as published evaluations train on them (random resized crops and flips) and test on (central squares).

Crops and flips are addressed by the seed, the epoch and the image.
"""

import math
import random
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import PIL.Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transform

from bgsweep.augment.crop_window import draw_window
from bgsweep.config import Preprocessing as Seen
from bgsweep.data import Image, ImageDataset
from bgsweep.errors import UnreadableImage
from bgsweep.evaluation.datasets.background_variants import batches_of
from bgsweep.evaluation.datasets.listing import preprocessing_words, square
from bgsweep.evaluation.features import ImageBatches
from bgsweep.images.compositing import Rect
from bgsweep.seeding import Draw, rng_key

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
Kind = Literal["torchvision", "byol"]
"""torchvision's RandomResizedCrop, Resize and CenterCrop, bilinear, as MoCo and SwAV use them; or BYOL's: what of a
window lies outside of the image is cut off, the centre is cut out before it is resized, and both are bicubic."""

_MODES = {"torchvision": InterpolationMode.BILINEAR, "byol": InterpolationMode.BICUBIC}


def shuffled(count: int, seed: int, epoch: int, batch_size: int) -> list[npt.NDArray[np.int64]]:
    """The numbers 0 to `count` - 1 in an epoch's order, in batches."""
    order = np.random.default_rng(rng_key(seed, epoch, "", Draw.PROBE_ORDER)).permutation(count)
    return [order[first : first + batch_size] for first in range(0, count, batch_size)]


def training_crops(
    source: ImageDataset,
    batches: list[npt.NDArray[np.int64]],
    size: int,
    seed: int,
    epoch: int,
    threads: int,
    kind: Kind = "torchvision",
) -> ImageBatches:
    """Crops (N, size, size, 3) of the images numbered in each batch, with their labels.

    Unreadable images are passed over. The next batch is made while the last one is in use.
    """
    crop = partial(_crop, source, size, seed, epoch, kind)
    with ThreadPoolExecutor(threads) as pool:
        waiting: list[Future[Image | None]] = []
        for number, part in enumerate(batches):
            ready = waiting or [pool.submit(crop, int(index)) for index in part]
            waiting = [pool.submit(crop, int(index)) for after in batches[number + 1 : number + 2] for index in after]
            made = [(view.result(), source.labels[index]) for view, index in zip(ready, part, strict=True)]
            views = [(view, label) for view, label in made if view is not None]
            if views:
                images, labels = zip(*views, strict=True)
                yield np.stack(images), np.array(labels, np.int64)


def test_squares(source: ImageDataset, seen: Seen, batch_size: int, kind: Kind = "torchvision") -> ImageBatches:
    """The images' central squares, with their labels."""
    see = _cut_square if kind == "byol" else square
    shown = seen.model_copy(update={"interpolation": _MODES[kind].value})
    return batches_of(source, lambda image: see(PIL.Image.fromarray(image), shown), batch_size)


def squares_words(seen: Seen, kind: Kind = "torchvision") -> str:
    """Protocol of `test_squares`, in words."""
    if kind == "byol":
        return (
            f"centre square of {seen.crop / seen.resize:.3g} of the shorter side, resized to {seen.crop} px (bicubic)"
        )
    return preprocessing_words(seen.model_copy(update={"interpolation": _MODES[kind].value}))


def _cut_square(image: PIL.Image.Image, seen: Seen) -> Image:
    side = max(1, int(seen.crop / seen.resize * min(image.size)))
    left, top = (image.width - side + 1) // 2, (image.height - side + 1) // 2
    mode = InterpolationMode(seen.interpolation)
    return np.array(transform.resized_crop(image, top, left, side, side, [seen.crop, seen.crop], mode))


def _cut_window(height: int, width: int, draws: random.Random) -> Rect:
    """A window whose area and aspect are drawn as `draw_window` does, once; what does not fit is cut off."""
    target, aspect = height * width * draws.uniform(*SCALE), math.exp(draws.uniform(*map(math.log, RATIO)))
    columns = min(width, max(1, round(math.sqrt(target * aspect))))
    rows = min(height, max(1, round(math.sqrt(target / aspect))))
    top, left = draws.randint(0, height - rows), draws.randint(0, width - columns)
    return Rect(top, left, top + rows, left + columns)


def _crop(source: ImageDataset, size: int, seed: int, epoch: int, kind: Kind, index: int) -> Image | None:
    try:
        sample = source[index]
    except UnreadableImage:
        return None
    draws = random.Random(rng_key(seed, epoch, sample.id, Draw.PROBE_CROP))
    height, width = sample.image.shape[:2]
    window = _cut_window(height, width, draws) if kind == "byol" else draw_window(height, width, SCALE, RATIO, draws)
    image = PIL.Image.fromarray(sample.image)
    box = window.top, window.left, window.height, window.width
    view = transform.resized_crop(image, *box, [size, size], _MODES[kind])
    return np.array(transform.hflip(view) if draws.random() < 0.5 else view)
