"""The HTML page on which a person marks bad masks."""

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, cast

import cv2
import jinja2

from bgsweep.images.compositing import Image, Mask, binarize
from bgsweep.masks.grabcut import shrink
from bgsweep.masks.marks import FORMAT

_BYTES = 4.5e6
# Of a thumbnail's pixel in the page: JPEG at quality 75, in base64, and the contour.
_BYTES_PER_PIXEL = 0.45
_SMALLEST, _LARGEST = 96, 320
# Contours of fewer pixels cannot be seen. A path of this length has a third of a thumbnail's bytes.
_LEAST_AREA, _LONGEST_PATH = 3.0, 5000
_SMOOTHED = (1, 5, 15, 45)  # windows of a median filter


class Item(NamedTuple):
    """A mask on the page.

    Attributes:
        image, mask: names below their roots.
        sha256: of the mask's file, so that the marks are not taken for those of another mask.
        reason: why it is suspicious.
        sampled: drawn at random from all masks.
        listed: among the most suspicious.
    """

    image: str
    mask: str
    sha256: str
    reason: str
    sampled: bool
    listed: bool


def thumbnail_side(count: int) -> int:
    """Longer side in pixels of thumbnails of which ``count`` make a page of about 5 MB."""
    return round(min(_LARGEST, max(_SMALLEST, math.sqrt(_BYTES / _BYTES_PER_PIXEL / max(1, count)))))


def thumbnail(image: Image, mask: Mask, side: int) -> dict[str, Any]:
    """An image as an inline JPEG with its mask's contours as an SVG path."""
    small = shrink(image, side)
    height, width = small.shape[:2]
    fitted = cast(Mask, cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA))
    data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 75])[1].tobytes()
    source = "data:image/jpeg;base64," + base64.b64encode(data).decode()
    return {"source": source, "width": width, "height": height, "contour": _contour(fitted)}


def review_page(
    items: Sequence[Item], thumbnails: Sequence[dict[str, Any]], masks: str, pairs: int, about: dict[str, Any]
) -> str:
    """One self-contained HTML page; its script writes the marks as JSON for `bgsweep masks drop`.

    Args:
        items: those drawn at random first.
        thumbnails: of `thumbnail`, one for each item.
        masks: the masks' folder or URI.
        pairs: number of images that have a mask.
        about: what else the template names.
    """
    here = Path(str(resources.files("bgsweep.report")))
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=jinja2.FileSystemLoader(here)
    )
    identity = hashlib.sha256(json.dumps([masks, items]).encode()).hexdigest()[:16]
    review = {"format": FORMAT, "id": identity, "masks": masks, "pairs": pairs}
    review["items"] = [item._asdict() for item in items]
    cards = [{**item._asdict(), **drawn} for item, drawn in zip(items, thumbnails, strict=True)]
    return environment.get_template("review.html").render(
        about,
        masks=masks,
        pairs=pairs,
        sampled=[card for card in cards if card["sampled"]],
        listed=[card for card in cards if not card["sampled"]],
        data=json.dumps(review).replace("<", "\\u003c"),
        style="".join((here / name).read_text(encoding="utf-8") for name in ("page.css", "review.css")),
        script=(here / "review.js").read_text(encoding="utf-8"),
    )


def _contour(mask: Mask) -> str:
    """The foreground's contours as an SVG path; those of speckled masks are smoothed: they would fill the page."""
    bits, path = binarize(mask), ""
    for smoothed in _SMOOTHED:
        found, _ = cv2.findContours(cv2.medianBlur(bits, smoothed), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        parts = [cv2.approxPolyDP(each, 0.7, True)[:, 0] for each in found if cv2.contourArea(each) >= _LEAST_AREA]
        path = "".join("M" + "L".join(f"{x} {y}" for x, y in part.tolist()) + "Z" for part in parts)
        if len(path) <= _LONGEST_PATH:
            break
    return path
