"""Contact sheets: grids of images and their augmented views."""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import cv2
import numpy as np

from bgsweep.augment.pipeline import LARGE_VIEWS, MaskedImage, ViewPipeline, ViewResult
from bgsweep.images.compositing import Image, Mask, binarize
from bgsweep.seeding import view_key

Method = Callable[[MaskedImage, MaskedImage], ViewResult]
"""Makes one view of a sample, with a background donor."""

CELL = 128
_BINS, _PLOT = 20, 150
_GAP, _MARGIN, _HEADER, _CAPTION = 8, 20, 28, 20
_PAPER, _INK, _FAINT, _OUTLINE = (250, 250, 248), (40, 44, 52), (120, 124, 130), (255, 64, 129)


def outlined(image: Image, mask: Mask) -> Image:
    """The image, resized to a cell, with a line around its foreground."""
    cell = _cell(image)
    size = cell.shape[1], cell.shape[0]
    enlarged = cv2.resize(binarize(mask), size, interpolation=cv2.INTER_LINEAR)
    contours, _ = cv2.findContours(binarize(cast(Mask, enlarged)), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(cell, contours, -1, _OUTLINE, 2, cv2.LINE_AA)
    return cell


def view_grid(rows: Sequence[Sequence[Image]], headers: Sequence[str], captions: Sequence[Sequence[str]]) -> Image:
    """Images in rows and columns on light paper, a header above each column and a caption below each image.

    Args:
        rows: RGB images of any size; each is fitted into a cell of 128 x 128 px, small ones with their pixels visible.
        headers: one for each column.
        captions: one for each image, as in `rows`; may be empty.

    Returns:
        Height x width x 3, uint8, RGB.
    """
    down, across = CELL + _CAPTION + _GAP, CELL + _GAP
    height = 2 * _MARGIN + _HEADER + len(rows) * down - _GAP
    sheet = np.full((height, 2 * _MARGIN + len(headers) * across - _GAP, 3), _PAPER, np.uint8)
    for column, header in enumerate(headers):
        _write(sheet, header, _MARGIN + column * across, _MARGIN, _HEADER, 0.46, _INK)
    for row, (images, texts) in enumerate(zip(rows, captions, strict=True)):
        top = _MARGIN + _HEADER + row * down
        for column, (image, text) in enumerate(zip(images, texts, strict=True)):
            cell, left = _cell(image), _MARGIN + column * across
            y, x = top + (CELL - cell.shape[0]) // 2, left + (CELL - cell.shape[1]) // 2
            sheet[y : y + cell.shape[0], x : x + cell.shape[1]] = cell
            _write(sheet, text, left, top + CELL, _CAPTION, 0.38, _FAINT)
    return sheet


def preview(
    pipeline: ViewPipeline,
    samples: Sequence[MaskedImage],
    seed: int = 0,
    epoch: int = 0,
    methods: Mapping[str, Method] | None = None,
) -> Image:
    """A grid of images with their foregrounds outlined, and beside each the views that a pipeline makes of it.

    Each sample's background donor is the next sample. The draws are those of (seed, epoch) in training. Each of
    ``methods`` adds a column under its name.
    """
    methods = methods or {}
    headers = ["image", *(f"view {view + 1}" for view in range(LARGE_VIEWS))]
    headers += [f"small {view + 1}" for view in range(pipeline.n_views - LARGE_VIEWS)]
    headers += methods
    rows, captions = [], []
    for sample, donor in zip(samples, [*samples[1:], *samples[:1]], strict=True):
        views = _views(pipeline, sample, donor, seed, epoch)
        views += [make(sample, donor) for make in methods.values()]
        original = sample.image if sample.mask is None else outlined(sample.image, sample.mask)
        rows.append([original, *(view.image for view in views)])
        captions.append(["", *(view.applied.replace("none", "").replace("_", ": ") for view in views)])
    return view_grid(rows, headers, captions)


def area_histogram(areas: Sequence[float], low: float, high: float, width: int) -> Image:
    """Histogram of the foreground's share of views, with the area bounds marked.

    Args:
        areas: foreground's share of each view, 0 to 1.
        low, high: bounds outside of which a view keeps its background.
        width: of the histogram in pixels.

    Returns:
        Height x ``width`` x 3, uint8, RGB.
    """
    sheet = np.full((_HEADER + _PLOT + 2 * _CAPTION, width, 3), _PAPER, np.uint8)
    counts, _ = np.histogram(areas, bins=_BINS, range=(0.0, 1.0))
    left, right, base = 2 * _MARGIN, width - 2 * _MARGIN, _HEADER + _PLOT
    edges = np.linspace(left, right, _BINS + 1).round().astype(int)
    for index, count in enumerate(counts):
        top = base - round(_PLOT * count / max(1, counts.max()))
        cv2.rectangle(sheet, (int(edges[index]) + 1, top), (int(edges[index + 1]) - 1, base), _FAINT, cv2.FILLED)
    for bound in (low, high):
        x = round(left + bound * (right - left))
        cv2.line(sheet, (x, _HEADER), (x, base), _OUTLINE, 2, cv2.LINE_AA)
    small, large = (np.mean(np.less(areas, low)), np.mean(np.greater(areas, high)))
    words = f"foreground in {len(areas)} views: {small:.1%} below {low:.0%}, {large:.1%} above {high:.0%} keep theirs"
    cv2.putText(sheet, words, (left, _HEADER - 10), cv2.FONT_HERSHEY_SIMPLEX, 0.42, _INK, 1, cv2.LINE_AA)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        _write(sheet, f"{share:.0%}", round(left + share * (right - left)) - CELL // 2, base, _CAPTION, 0.38, _FAINT)
    return sheet


def _views(pipeline: ViewPipeline, sample: MaskedImage, donor: MaskedImage, seed: int, epoch: int) -> list[ViewResult]:
    keys = [view_key(seed, epoch, sample.id, view) for view in range(pipeline.n_views)]
    return [pipeline.make(sample, lambda: donor, key, view) for view, key in enumerate(keys)]


def _cell(image: Image) -> Image:
    """The image with its longer side resized to the cell's."""
    zoom = CELL / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * zoom)), max(1, round(image.shape[0] * zoom)))
    return cast(Image, cv2.resize(image, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_NEAREST_EXACT))


def _write(sheet: Image, text: str, left: int, top: int, height: int, scale: float, color: tuple[int, ...]) -> None:
    """Text, centred in a strip as wide as a cell."""
    (width, rise), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    origin = (left + (CELL - width) // 2, top + (height + rise) // 2)
    cv2.putText(sheet, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)
