"""`bgsweep preview`: augmented views to look at before training."""

import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bgsweep.augment.contact_sheet import Method, area_histogram
from bgsweep.augment.contact_sheet import preview as preview_sheet
from bgsweep.augment.pipeline import LARGE_VIEWS, MaskedImage, ViewPipeline, ViewResult
from bgsweep.config import SweepConfig
from bgsweep.data import Image, Splits, open_splits
from bgsweep.data.kept_backgrounds import too_many_kept, view_areas
from bgsweep.data.loader import Batches
from bgsweep.errors import UserError
from bgsweep.report.images import finished_views, first_images
from bgsweep.seeding import swap_keys, view_key

COUNTED_IMAGES = 256


def preview(config: SweepConfig, out: Path, images: int) -> dict[str, Any]:
    """Write a PNG of a run's first views, and count the background augmentations in them.

    With masks, a histogram of the foreground area of views is drawn below the views.

    Returns:
        ``out``, ``images``, ``shares`` of the first epoch's views: `removed`, `replaced`, `kept` (foreground too small
        or too large: `kept_small`, `kept_large`), with BG_Swaps `swapped` (of images); with scheduled probabilities
        ``last_shares``, those of the last epoch; ``foreground``: of all views, augmented or not, the shares
        `too_small` and `too_large` for a background augmentation, and the `median` area (None without masks).

    Raises:
        UserError: the image cannot be written.
    """
    splits = open_splits(config.experiment.data)
    for line in splits.said:
        print(line, file=sys.stderr)
    sheet = _sheet(config, splits, images)
    seen = first_images(config, splits, COUNTED_IMAGES) if splits.train.has_masks else []
    areas = [area for sample in seen for area in view_areas(config.experiment, sample)]
    background = config.experiment.background
    if areas and (problem := too_many_kept(config.experiment, areas)):
        print(f"{splits.train.name}: {problem}", file=sys.stderr)
    if areas:
        below = area_histogram(areas, background.min_area, background.max_area, sheet.shape[1])
        sheet = np.vstack([sheet, below])
    encoded = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(encoded.tobytes())
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}; name another by --out") from error
    found = {
        "too_small": float(np.mean(np.less(areas, background.min_area))),
        "too_large": float(np.mean(np.greater(areas, background.max_area))),
        "median": float(np.median(areas)),
    }
    result = {"out": str(out), "images": images, "shares": _shares(config, splits)}
    if background.scheduled:
        result["last_shares"] = _shares(config, splits, config.experiment.training.epochs - 1)
    return result | {"foreground": found if areas else None}


def _sheet(config: SweepConfig, splits: Splits, images: int) -> Image:
    """Views, and a column for each background augmentation that the method supports, applied to every image."""
    seed, methods = config.experiment.seed, _methods(config) if splits.train.has_masks else {}
    return preview_sheet(finished_views(config), first_images(config, splits, images), seed, methods=methods)


def _methods(config: SweepConfig) -> dict[str, Method]:
    seed = config.experiment.seed
    removing, replacing, plain = (
        finished_views(config, {"remove": remove, "random": random})
        for remove, random in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0))
    )

    def single(pipeline: ViewPipeline) -> Method:
        return lambda sample, donor: pipeline.make(sample, lambda: donor, view_key(seed, 0, sample.id, 0), 0)

    def swap_key(sample: MaskedImage, donor: MaskedImage) -> ViewResult:
        return plain.make(sample, lambda: donor, view_key(seed, 0, sample.id, 1), 1, replace=True)

    def swap_negative(sample: MaskedImage, donor: MaskedImage) -> ViewResult:
        keys = view_key(seed, 0, sample.id, 0), swap_keys(seed, 0, sample.id)
        return plain.make_swap(sample, lambda: donor, donor, *keys)

    found: dict[str, Method] = {"BG_RM": single(removing), "BG_Random": single(replacing)}
    if not config.experiment.method.supports_swaps:
        return found
    key: dict[str, Method] = {"Swaps: key": swap_key} if config.experiment.background.swap_form == "full" else {}
    return found | key | {"Swaps: negative": swap_negative}


def _shares(config: SweepConfig, splits: Splits, epoch: int = 0) -> dict[str, float]:
    size = min(32, len(splits.train))
    batches = Batches(splits.train, finished_views(config), size, config.experiment.seed).epoch(epoch)
    counts: Counter[str] = Counter()
    for batch in islice(batches, COUNTED_IMAGES // size):
        counts.update(batch.counts)
    found = {name: counts[name] / counts["views"] for name in ("removed", "replaced", "kept_small", "kept_large")}
    found["kept"] = found["kept_small"] + found["kept_large"]
    images = counts["views"] / (LARGE_VIEWS + config.experiment.views.small_crops)
    return found | ({"swapped": counts["swaps"] / images} if config.experiment.background.swap else {})
