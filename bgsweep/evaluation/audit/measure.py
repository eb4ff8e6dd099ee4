"""The protocol of an audit's measures: a function of a `Subject` that returns values by image, and details as JSON.

To add one: a file in this folder with a function of a `Subject` and a line in `measures.MEASURES`. What it computes
from features or predictions is a pure function in the same file, with a test against a reference or a limit.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2

from bgsweep.data import Image
from bgsweep.evaluation.evaluator import PerImageMetric

if TYPE_CHECKING:
    from bgsweep.evaluation.audit.subject import Subject

THUMBNAIL = 96
"""Side in pixels of images on the page."""


class NotApplicable(Exception):
    """A measure that this encoder or these images do not have; the message says why."""


@dataclass(frozen=True)
class Found:
    """The result of a measure.

    Attributes:
        values: the first is the one that the page shows above the others.
        details: what the page shows beside the values, as JSON: curves, tables and images.
    """

    values: Sequence[PerImageMetric]
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Measure:
    """A measure by name.

    Attributes:
        title: heading on the page.
        text: what the values mean, for a reader who does not know them.
        run: measures a subject; raises `NotApplicable`.
        labels: the measure needs images in class folders.
    """

    name: str
    title: str
    text: str
    run: "Callable[[Subject], Found]"
    labels: bool = False


def thumbnail(image: Image, side: int = THUMBNAIL) -> str:
    """An image as an inline JPEG."""
    flag = cv2.INTER_NEAREST if image.shape[0] <= side else cv2.INTER_AREA
    small = cv2.resize(image, (side, side), interpolation=flag)
    data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()
