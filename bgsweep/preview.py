"""A look at augmented views before any device hour is spent on them."""

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import cv2

from bgsweep.augment.picture import preview as preview_sheet
from bgsweep.augment.views import ViewPipeline
from bgsweep.config import SweepFile
from bgsweep.data import Image, Splits, open_splits
from bgsweep.data.loader import Batches
from bgsweep.data.order import epoch_order
from bgsweep.data.readable import readable
from bgsweep.errors import UserError

COUNTED_IMAGES = 256


def preview(file: SweepFile, out: Path, images: int) -> dict[str, Any]:
    """Write a PNG of views such as a run of the file begins with, and say how the background fares in them.

    Returns:
        ``picture``, ``images`` and ``shares`` of views: `removed`, `replaced`, `kept` (foreground too small or large).

    Raises:
        UserError: the picture cannot be written.
    """
    splits = open_splits(file.experiment.data)
    picture = cv2.imencode(".png", cv2.cvtColor(views_picture(file, splits, images), cv2.COLOR_RGB2BGR))[1]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(picture.tobytes())
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from error
    return {"picture": str(out), "images": images, "shares": _shares(file, splits)}


def views_picture(file: SweepFile, splits: Splits, images: int) -> Image:
    """Rows of photographs with their foreground outlined, and beside them views of the first epoch."""
    experiment = file.experiment
    order = epoch_order(experiment.seed, 0, len(splits.train))
    shown = islice(readable(splits.train, (int(index) for index in order)), images)
    return preview_sheet(_pipeline(file), [sample for _, sample in shown], experiment.seed)


def _shares(file: SweepFile, splits: Splits) -> dict[str, float]:
    size = min(32, len(splits.train))
    batches = Batches(splits.train, _pipeline(file), size, file.experiment.seed).epoch(0)
    counts: Counter[str] = Counter()
    for batch in islice(batches, COUNTED_IMAGES // size):
        counts.update(batch.counts)
    kept = counts["kept_small"] + counts["kept_large"]
    found = {"removed": counts["removed"], "replaced": counts["replaced"], "kept": kept}
    return {name: count / counts["views"] for name, count in found.items()}


def _pipeline(file: SweepFile) -> ViewPipeline:
    views = file.experiment.views.model_copy(update={"photometric": "cpu"})  # the same draws, as finished pictures
    return ViewPipeline(views, file.experiment.background)
