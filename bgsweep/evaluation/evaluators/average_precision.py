"""COCO's average precision of boxes, as pycocotools measures it."""

import contextlib
import importlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bgsweep.errors import UserError
from bgsweep.evaluation.datasets.boxes import Annotated


class Found(NamedTuple):
    """Detections in one image: boxes as in `Annotated` (N, 4), labels (N,), scores (N,)."""

    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


def cocotools() -> tuple[Any, Any]:
    """pycocotools' COCO and COCOeval.

    Raises:
        UserError: it is not installed.
    """
    try:
        found: tuple[Any, Any] = (
            importlib.import_module("pycocotools.coco").COCO,
            importlib.import_module("pycocotools.cocoeval").COCOeval,
        )
    except ImportError as error:
        raise UserError("detection needs pycocotools: pip install 'bgsweep[detection]'") from error
    return found


def average_precisions(truth: Sequence[Annotated], found: Sequence[Found], classes: int) -> dict[str, float]:
    """`ap` (mean over the overlaps 0.5 to 0.95), `ap50` and `ap75`, each a mean over classes, 0 to 1.

    At most the 100 surest boxes of an image count.
    """
    coco_type, eval_type = cocotools()
    with contextlib.redirect_stdout(io.StringIO()):  # it reports to stdout, which is for results
        coco = coco_type()
        coco.dataset = {
            "info": {},
            "images": [{"id": number} for number in range(len(truth))],
            "categories": [{"id": label} for label in range(classes)],
            "annotations": [
                {"id": number, **one} for number, one in enumerate(_truths(truth), start=1)
            ],  # 0 would be taken for no match
        }
        coco.createIndex()
        detections = _detections(found)
        if not detections:  # of which pycocotools can make no table
            return dict.fromkeys(("ap", "ap50", "ap75"), 0.0)
        coco_eval = eval_type(coco, coco.loadRes(detections), "bbox")
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    return {name: float(coco_eval.stats[index]) for index, name in enumerate(("ap", "ap50", "ap75"))}


def _truths(truth: Sequence[Annotated]) -> list[dict[str, Any]]:
    return [
        {
            "image_id": number,
            "category_id": int(label),
            "bbox": _corner_and_size(box),
            "area": float((box[2] - box[0]) * (box[3] - box[1])),
            "iscrowd": int(ignored),
        }
        for number, one in enumerate(truth)
        for box, label, ignored in zip(one.boxes, one.labels, one.ignored, strict=True)
    ]


def _detections(found: Sequence[Found]) -> list[dict[str, Any]]:
    return [
        {"image_id": number, "category_id": int(label), "bbox": _corner_and_size(box), "score": float(score)}
        for number, one in enumerate(found)
        for box, label, score in zip(*one, strict=True)
    ]


def _corner_and_size(box: npt.NDArray[np.float32]) -> list[float]:
    left, top, right, bottom = (float(side) for side in box)
    return [left, top, right - left, bottom - top]
