"""Photographs as published evaluations train on them (random resized crops and flips) and test on (central squares).

Crops and flips are addressed by the seed, the epoch and the photograph.
"""

import random
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt
import PIL.Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transform

from bgsweep.augment.crop import draw_window
from bgsweep.augment.randomness import address
from bgsweep.config import Pictures as Seen
from bgsweep.data import Image, Source
from bgsweep.data.decode import UnreadableImage
from bgsweep.evaluation.features import Pictures
from bgsweep.evaluation.listing import square
from bgsweep.evaluation.variants import pictures_of

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def shuffled(count: int, seed: int, epoch: int, batch_size: int) -> list[npt.NDArray[np.int64]]:
    """The numbers 0 to `count` - 1 in an epoch's order, in batches."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return [order[first : first + batch_size] for first in range(0, count, batch_size)]


def training_crops(
    source: Source, batches: list[npt.NDArray[np.int64]], size: int, seed: int, epoch: int, threads: int
) -> Pictures:
    """Crops (N, size, size, 3) of the photographs numbered in each batch, with their labels.

    Unreadable photographs are passed over. The next batch is made while the last one is in use.
    """
    crop = partial(_crop, source, size, seed, epoch)
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


def test_squares(source: Source, seen: Seen, batch_size: int) -> Pictures:
    """The photographs' central squares, with their labels."""
    return pictures_of(source, lambda image: square(PIL.Image.fromarray(image), seen), batch_size)


def _crop(source: Source, size: int, seed: int, epoch: int, index: int) -> Image | None:
    try:
        sample = source[index]
    except UnreadableImage:
        return None
    draws = random.Random(address(seed, epoch, sample.id, 0))
    height, width = sample.image.shape[:2]
    top, left, bottom, right = draw_window(height, width, SCALE, RATIO, draws)
    picture = PIL.Image.fromarray(sample.image)
    mode = InterpolationMode.BILINEAR
    view = transform.resized_crop(picture, top, left, bottom - top, right - left, [size, size], mode)
    return np.array(transform.hflip(view) if draws.random() < 0.5 else view)
