"""The images that metrics see: some of the split, views of them, and their features, shared by all metrics."""

import threading

import numpy as np
import torch

from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config.views import Background, Views
from bgsweep.data import Image
from bgsweep.data.readable import seen
from bgsweep.errors import UserError
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.metrics.base import Array
from bgsweep.seeding import Draw, rng_key


def validation_features(context: EvalContext, most: int) -> Array:
    """Features (N, D), float64, of the split in the configured variant, of `most` images spread over it at most."""
    found = context.images.variant(context.config.evaluate.variant)
    rows = np.unique(np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(np.int64))
    return found.rows(torch.from_numpy(rows)).double().cpu().numpy()


def by_key(context: EvalContext, indices: list[int]) -> list[int]:
    """The images in the order of their draws: the first few are a random choice that does not change."""
    ids, seed = context.images.source.ids, context.config.evaluate.seed
    return sorted(indices, key=lambda index: rng_key(seed, 0, ids[index], Draw.METRIC_IMAGE))


def chosen(context: EvalContext, count: int, least: int) -> list[int]:
    """At most `count` of the split's readable images; the same for every epoch, worker, trial and resumed run.

    Raises:
        UserError: there are fewer than `least`.
    """
    source = context.images.source
    key = ("images of metrics", context.split, context.config.evaluate.seed, count)
    if key not in context.images.splits.kept:
        readable = seen(source, lambda sample: bool(sample.image.size), by_key(context, list(range(len(source)))))
        context.images.splits.kept[key] = [index for _, (index, _) in zip(range(count), readable, strict=False)]
    found: list[int] = context.images.splits.kept[key]
    if len(found) < least:
        raise UserError(f"{source.name}: the metric needs {least} images, and {len(found)} can be read; add some")
    return found


def view_features(context: EvalContext, images: int, view: int) -> Array:
    """Features (N, D), float64, of one view of each of some images, which are grouped by nothing but their row.

    The views are MoCo-v2's, without background augmentations, whatever the run trains with: a metric by which trials
    are compared must show all of them the same images, and a trial of weak augmentations would otherwise be measured
    by an easier task.
    """
    source, size = context.images.source, context.config.size
    indices, seed, local = chosen(context, images, 2), context.config.evaluate.seed, threading.local()

    def image(number: int) -> Image:
        if not hasattr(local, "pipeline"):  # it draws from one generator, which threads must not share
            local.pipeline = ViewPipeline(Views(size=size), Background())
        sample = source[indices[number]]
        key = rng_key(seed, 0, sample.id, Draw.METRIC_VIEW, view)
        found: Image = local.pipeline.make(sample, lambda: sample, key, 0).image
        return found

    return context.made(("view", view, images), len(indices), image).double().numpy()
