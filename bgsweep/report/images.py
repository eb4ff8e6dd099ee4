"""Images for the page and for MLflow: background variants, and views of training."""

import base64
from itertools import islice
from typing import Any

import cv2

from bgsweep.augment.contact_sheet import preview as preview_sheet
from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config import SweepConfig
from bgsweep.config.evaluation import VARIANTS
from bgsweep.data import Image, Sample, Splits
from bgsweep.data.order import epoch_order
from bgsweep.data.readable import readable
from bgsweep.evaluation import VariantSet

_ROWS, _CELL, _GALLERY_ROWS = 3, 96, 6


def variants_of(config: SweepConfig, splits: Splits) -> tuple[list[list[str]], int]:
    """Examples of each background variant, made from the same images, and the number of images that have variants."""
    variants = VariantSet(splits.test, splits.pools("test"), config.evaluate, config.experiment.views.size)
    step = max(1, len(variants.usable) // _ROWS)
    chosen = variants.usable[::step][:_ROWS]
    columns = [[_inline(_enlarged(variants.image(name, index))) for index in chosen] for name in VARIANTS]
    return columns, len(variants.usable)


def gallery(config: SweepConfig, splits: Splits) -> str:
    """Views of the champion's first epoch, as an inline image."""
    return _inline(views_grid(config, splits, min(_GALLERY_ROWS, len(splits.train))))


def views_grid(config: SweepConfig, splits: Splits, images: int) -> Image:
    """Images with their foregrounds outlined, each beside its views of the first epoch."""
    return preview_sheet(finished_views(config), first_images(config, splits, images), config.experiment.seed)


def first_images(config: SweepConfig, splits: Splits, images: int) -> list[Sample]:
    """Images in the order of the first epoch."""
    order = epoch_order(config.experiment.seed, 0, len(splits.train))
    return [
        sample
        for _, sample in islice(
            readable(splits.train, (int(order[position]) for position in range(len(order)))), images
        )
    ]


def finished_views(config: SweepConfig, background: dict[str, float] | None = None) -> ViewPipeline:
    """A pipeline that makes the views of training completely on the CPU; ``background`` replaces probabilities."""
    views = config.experiment.views.model_copy(update={"photometric": "cpu"})  # the same draws
    section = config.experiment.background.model_copy(update=background or {})
    return ViewPipeline(views, section, config.experiment.training.epochs)


def _enlarged(image: Image) -> Any:
    flag = cv2.INTER_NEAREST if image.shape[0] <= _CELL else cv2.INTER_AREA
    return cv2.resize(image, (_CELL, _CELL), interpolation=flag)


def _inline(image: Any) -> str:
    content = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()
