"""Crop, background augmentation and resize in one transform: the one that training runs.

Compositing on the crop window costs 0.6 % of a MoCo-v2 pipeline at p = 0.1 each, two separate transforms on the whole
image 17 %. Compositing after the resize would be neither faster nor exact: with tiles 58 % of the pixels differ.
"""

from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, cast

import cv2

from bgsweep.augment.background import (
    Blend,
    DonorDraw,
    DonorMode,
    FillMode,
    LazyMask,
    Negative,
    Placement,
    area_verdict,
    composite,
    draw_placement,
    move_foreground,
    negative_crop,
    negative_in_front,
    random_background,
    removed_background,
    resolve_mask,
)
from bgsweep.augment.crop_window import draw_window
from bgsweep.images.compositing import Image, Rect, tiled_background
from bgsweep.images.resizing import resize_antialiased
from bgsweep.seeding import Draw, rng_key

Applied = Literal["none", "removed", "replaced", "kept_small", "kept_large"]
Interpolation = Literal["linear", "area", "bilinear", "bicubic"]

_FLAGS = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}


@dataclass(kw_only=True, eq=False, repr=False)
class TrainingCrop:
    """RandomResizedCrop with BG_RM and BG_Random on the crop, before its one resize.

    The crop window is a view of the image; its background is replaced at source resolution with a masked copy, which
    is bit-equal to augmenting the whole image and cropping it afterwards. BG_RM and BG_Random are drawn independently,
    and the background is removed where both were; a crop whose foreground covers less than `min_area` or more than
    `max_area` of it keeps its background. The random draws are the same whatever the probabilities, so that pipelines
    that differ only in them see the same crops.

    BG_Swaps asks for two more things. With `replace` a crop gets BG_Random whatever was drawn. With a `negative` (see
    `Negative`) it shows another image in front of its background: with the same random state, the same pixels outside
    both foregrounds. A silhouette needs nothing behind it; behind a foreground, a crop that keeps
    its own background has its own foreground covered with tiles of it (`compositing.tiled_background`).

    Attributes:
        size: height and width of the view.
        scale: range of the crop's share of the image's area; also that of a plain donor's window (`RandomBackground`).
        ratio: range of the crop's width / height.
        remove: probability of BG_RM.
        random: probability of BG_Random.
        fill: BG_RM's background (`RemoveBackground`).
        donor: the part of the other image that BG_Random shows (`RandomBackground`).
        min_area: smallest share of the crop, 0 to 1.
        max_area: largest share of the crop, 0 to 1.
        foreground_scale: most that the foreground's sides are multiplied by, or divided, before a new background
            (`background.draw_placement`); 1 leaves it as it is.
        foreground_position: 0 leaves the foreground where it is; n: order of the Bates distribution of its position.
        blend: `hard` (a pixel is foreground where the mask is above 127) or `soft` (mixed by the mask's grey levels).
        mask_blur: sigma of a Gaussian over the mask, in pixels of the view, which mixes both along the edge.
        interpolation: `linear`, which does not antialias, or one of those that do where they shrink: `bilinear` and
            `bicubic` are Pillow's and torchvision's, `area` is OpenCV's INTER_AREA.
        py_random: source of the draws.
    """

    size: tuple[int, int]
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    remove: float = 0.0
    random: float = 0.0
    fill: FillMode = "random_gray"
    donor: DonorMode = "tiled"
    min_area: float = 0.01
    max_area: float = 0.95
    foreground_scale: float = 1.0
    foreground_position: int = 0
    blend: Blend = "hard"
    mask_blur: float = 0.0
    interpolation: Interpolation = "linear"
    py_random: Random = field(default_factory=Random, init=False)

    def draw_background(self) -> Applied:
        """The first draws of a crop: which background augmentation to apply, decided before any mask is decoded."""
        # Both are always drawn, so that all later draws are the same whatever the probabilities.
        removes, replaces = self.py_random.random() < self.remove, self.py_random.random() < self.random
        return "removed" if removes else "replaced" if replaces else "none"

    def draw_window(self, height: int, width: int) -> tuple[Applied, Rect]:
        """The draws of `draw_background`, then the window in an image of this height and width in pixels."""
        return self.draw_background(), draw_window(height, width, self.scale, self.ratio, self.py_random)

    def draw(self, height: int, width: int, mask: LazyMask, replace: bool = False) -> dict[str, Any]:
        """The draws of one crop, as arguments of `apply`.

        Args:
            height, width: of the image, in pixels.
            mask: its foreground mask, asked for only where a background augmentation was drawn.
            replace: BG_Random, whatever is drawn.
        """
        uniform = self.py_random.random
        drawn, window = self.draw_window(height, width)
        if replace:
            drawn = "replaced"
        fill_draw, donor_draw = uniform(), (uniform(), uniform(), uniform(), uniform())
        applied: Applied = "none"
        if drawn != "none":
            verdict = area_verdict(window.of(resolve_mask(mask)), self.min_area, self.max_area)
            applied = verdict or drawn
        found: dict[str, Any] = {
            "window": tuple(window),
            "applied": applied,
            "fill_draw": fill_draw,
            "donor_draw": donor_draw,
        }
        if applied in ("removed", "replaced") and (self.foreground_scale > 1 or self.foreground_position):
            # Its own generator, so that flip and colours are the same with and without a placement.
            placing = Random(rng_key(int(fill_draw * 2**53), 0, "", Draw.PLACEMENT))
            found["placement"] = draw_placement(self.foreground_scale, self.foreground_position, placing)
        return found

    def apply(
        self,
        img: Image,
        *args: Any,
        window: tuple[int, int, int, int],
        applied: Applied,
        fill_draw: float,
        donor_draw: DonorDraw,
        foreground: LazyMask,
        negative: Negative | None,
        placement: Placement | None = None,
        **params: Any,
    ) -> Image:
        # A view of the array: nothing is copied before the pixels of the window are needed.
        rect = Rect(*window)
        view: Image = rect.of(img)
        background: Image | None = None
        if applied == "removed":
            # Before the colours are changed, as in DiLo: foreground and background share jitter and blur, and do not
            # differ by them.
            background = removed_background(view, self.fill, fill_draw)
        elif applied == "replaced":
            background = random_background(params["donors"], self.donor, *_shape(view), self.scale, donor_draw)
        if negative is not None and negative["kind"] == "foreground":
            if background is None:
                background = rect.of(tiled_background(img, resolve_mask(foreground)))
            view = negative_in_front(negative, background, self.scale, self.min_area, self.max_area)
        elif negative is not None or background is not None:
            mask = rect.of(resolve_mask(foreground))
            moved, mask = (view, mask) if placement is None else move_foreground(view, mask, placement)
            if background is None:  # the negative keeps the query's own background
                background = view.copy()
            # m * r + (1 - m) * q, with r the foreground's pixels (of the query, or of the negative's image).
            shown = moved if negative is None else negative_crop(negative, *_shape(view), self.scale)
            blur = self.mask_blur * min(mask.shape) / min(self.size)
            # Before the resize: the masked copy then works on the source's pixels and is exact, see the module's
            # docstring.
            view = composite(shown, mask, background, self.blend, blur)
        # Antialiasing gave no better kNN in three seeds (benchmarks/RESULTS.md), but the published recipes have it.
        if self.interpolation == "bilinear" or self.interpolation == "bicubic":
            return resize_antialiased(view, self.size, self.interpolation)
        return cast(Image, cv2.resize(view, self.size[::-1], interpolation=_FLAGS[self.interpolation]))


def _shape(image: Image) -> tuple[int, int]:
    return image.shape[0], image.shape[1]
