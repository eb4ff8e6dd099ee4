"""Sensitivity to a watermark: a transparent line of text across the image (the idea of ImageNet-W, Li et al. 2023)."""

from functools import partial

import cv2
import numpy as np

from bgsweep.data import Image
from bgsweep.evaluation.audit.measure import Found, Measure, thumbnail
from bgsweep.evaluation.audit.subject import Subject
from bgsweep.evaluation.evaluator import share

_TEXT, _OPACITY, _BASELINE, _WIDTH = "SAMPLE SAMPLE", 0.5, 0.52, 0.98


def watermarked(image: Image) -> Image:
    """The image with white text of half opacity across its middle, about a sixth of its height."""
    size, font, probe = image.shape[1], cv2.FONT_HERSHEY_DUPLEX, 4.0
    (width, _), _ = cv2.getTextSize(_TEXT, font, probe, 1)
    scale = probe * _WIDTH * size / width
    thickness = max(1, round(size / 112))
    shown = np.zeros(image.shape[:2], np.uint8)
    cv2.putText(
        shown, _TEXT, (size // 100, round(_BASELINE * image.shape[0])), font, scale, 255, thickness, cv2.LINE_AA
    )
    alpha = _OPACITY * shown[..., None] / 255
    return np.asarray((image * (1 - alpha) + 255 * alpha).round(), np.uint8)


def watermark(subject: Subject) -> Found:
    """`gap`: what the watermark costs."""
    part = subject.part
    make = partial(_version, subject)
    plain = share("plain", subject.hits(subject.originals(part), part))
    marked = share("watermarked", subject.hits(subject.encoded("watermark", make, len(part)), part))
    return Found([plain.minus(marked, "gap"), plain, marked], {"examples": [thumbnail(make(0))]})


def _version(subject: Subject, number: int) -> Image:
    return watermarked(subject.variants.image("original", int(subject.part[number])))


MEASURE = Measure(
    "watermark",
    "Watermark",
    "What a transparent line of text across the image costs (the idea of ImageNet-W, Li et al. 2023).",
    watermark,
)
