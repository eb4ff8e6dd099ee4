"""The share of views that keep their background, since their foreground is too small or too large."""

from collections.abc import Iterable
from typing import cast

import numpy as np

from bgsweep.augment.pipeline import LARGE_VIEWS
from bgsweep.augment.training_crop import TrainingCrop
from bgsweep.config import Experiment
from bgsweep.data.leaks import files_of
from bgsweep.data.order import spread_evenly
from bgsweep.data.readable import seen
from bgsweep.data.sample import ImageDataset, Mask, Sample
from bgsweep.errors import UserError
from bgsweep.images.compositing import foreground_area
from bgsweep.seeding import view_key

LOOKED_AT = 256
_THREADS = 4


def view_areas(experiment: Experiment, sample: Sample) -> list[float]:
    """Foreground area of each large view of an image in the first epoch, 0 to 1."""
    mask, views = cast(Mask, sample.mask), experiment.views
    # A crop of its own, since threads call this. Its draws are the same whatever the probabilities.
    crop = TrainingCrop(size=(views.size, views.size), scale=views.scale, ratio=views.ratio)
    found = []
    for view in range(LARGE_VIEWS):
        crop.py_random.seed(view_key(experiment.seed, 0, sample.id, view))
        _, window = crop.draw_window(mask.shape[0], mask.shape[1])
        found.append(foreground_area(window.of(mask)))
    return found


def check_views(experiment: Experiment, train: ImageDataset) -> None:
    """Look at the views of some training images, before a shortcut or mask noise is added.

    Raises:
        UserError: more than `background.most_kept` of them would keep their background, so that the probabilities of
            background augmentations change little.
    """
    files = files_of(train)
    dataset, indices = (train, np.arange(len(train))) if files is None else files
    if not dataset.has_masks:
        return
    chosen = [int(indices[each]) for each in spread_evenly(len(indices), LOOKED_AT)]
    looked_at = seen(dataset, lambda sample: view_areas(experiment, sample), chosen, _THREADS)
    if reason := too_many_kept(experiment, [area for _, areas in looked_at for area in areas]):
        raise UserError(f"{dataset.name}: {reason}")


def too_many_kept(experiment: Experiment, areas: Iterable[float]) -> str | None:
    """The problem, and how to fix it, where more views keep their background than `most_kept`; else None."""
    found, background = np.array(list(areas)), experiment.background
    if not len(found):
        return None
    small, large = np.mean(found < background.min_area), np.mean(found > background.max_area)
    if small + large <= background.most_kept:
        return None
    return (
        f"{small + large:.0%} of {len(found)} views would keep their background: their foreground covers less than "
        f"background.min_area {background.min_area:g} in {small:.0%}, more than background.max_area "
        f"{background.max_area:g} in {large:.0%}; look at the masks (`bgsweep masks show`, `bgsweep preview`) and make "
        "better ones, or, if they are right, change min_area, max_area, or most_kept, which is "
        f"{background.most_kept:g}"
    )
