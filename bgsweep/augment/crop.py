"""Crop, background augmentation and resize in one transform, at the price of the crop and resize alone."""

import math
import random
from typing import Any, Literal, cast

import albumentations as A
import cv2
import numpy as np
from pydantic import AfterValidator, Field
from typing_extensions import Annotated

from bgsweep.augment.backdrop import (
    DonorDraw,
    DonorMode,
    Donors,
    FillMode,
    LazyMask,
    area_verdict,
    removal,
    replacement,
    resolve_mask,
)
from bgsweep.augment.background import BackgroundSchema, Scale, Share, ordered
from bgsweep.augment.composite import Image, Mask, Rect, background_plate, binarize, foreground_area

Applied = Literal["none", "removed", "replaced", "kept_small", "kept_large"]
Interpolation = Literal["linear", "area"]
Positive = Annotated[float, Field(gt=0)]

_FLAGS = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}
_TRIES = 10


class BackgroundResizedCrop(A.DualTransform):  # type: ignore[misc]
    """RandomResizedCrop with BG_RM and BG_Random on the crop, before its one resize.

    The crop window is a view of the image; its background is replaced at source resolution with a masked copy, which
    is bit-equal to augmenting the whole image and cropping it afterwards. BG_RM and BG_Random are drawn independently,
    and the background is removed where both were; a crop whose foreground covers less than `min_area` or more than
    `max_area` of it keeps its background. The number of random draws doesn't depend on the probabilities, so that
    pipelines that differ only in them see the same crops.

    Args:
        size: height and width of the view.
        scale: range of the crop's share of the image's area; also that of a plain donor's window (`RandomBackground`).
        ratio: range of the crop's width / height.
        remove: probability of BG_RM.
        random: probability of BG_Random.
        fill: what BG_RM puts behind the foreground (`RemoveBackground`).
        donor: what BG_Random shows of the other image (`RandomBackground`).
        min_area: smallest share of the crop, 0 to 1.
        max_area: largest share of the crop, 0 to 1.
        interpolation: `linear` does not antialias (torchvision on PIL images does); `area` does, at three times the
            cost.
        mask_key: the input that holds the foreground mask, height x width, or a function that gives it and is called
            only where a background augmentation was drawn. If it's `mask`, the mask is cropped and resized as well.
        metadata_key: the input that holds the donors, as for `RandomBackground`.
        p: probability of applying the transform; without it the image keeps its size.

    Targets: image, mask. Image types: uint8, three channels.
    """

    class InitSchema(BackgroundSchema):
        size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
        scale: Scale
        ratio: Annotated[tuple[Positive, Positive], AfterValidator(ordered)]
        remove: Share
        random: Share
        fill: FillMode
        donor: DonorMode
        interpolation: Interpolation
        metadata_key: str

    def __init__(
        self,
        size: tuple[int, int],
        scale: tuple[float, float] = (0.2, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        remove: float = 0.0,
        random: float = 0.0,
        fill: FillMode = "random_gray",
        donor: DonorMode = "tiled",
        min_area: float = 0.01,
        max_area: float = 0.95,
        interpolation: Interpolation = "linear",
        mask_key: str = "mask",
        metadata_key: str = "donor",
        p: float = 1.0,
    ):
        super().__init__(p=p)
        self.size, self.scale, self.ratio, self.interpolation = size, scale, ratio, interpolation
        self.remove, self.random, self.fill, self.donor = remove, random, fill, donor
        self.min_area, self.max_area = min_area, max_area
        self.mask_key, self.metadata_key = mask_key, metadata_key

    @property
    def targets_as_params(self) -> list[str]:
        masks = [self.mask_key] if self.remove or self.random else []
        return [*masks, self.metadata_key] if self.random else masks

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        uniform = self.py_random.random
        window = draw_window(*params["shape"][:2], self.scale, self.ratio, self.py_random)
        removes, replaces = uniform() < self.remove, uniform() < self.random
        fill_draw, donor_draw = uniform(), (uniform(), uniform(), uniform(), uniform())
        applied: Applied = "none"
        if removes or replaces:
            mask = window.of(resolve_mask(data[self.mask_key]))
            verdict = area_verdict(mask, self.min_area, self.max_area)
            applied = verdict or ("removed" if removes else "replaced")
        return {"window": tuple(window), "applied": applied, "fill_draw": fill_draw, "donor_draw": donor_draw}

    def apply_with_params(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        pixels = {"foreground": kwargs.get(self.mask_key), "donors": kwargs.get(self.metadata_key)}
        return cast(dict[str, Any], super().apply_with_params(params | pixels, *args, **kwargs))

    def apply(self, img: Image, *args: Any, window: Rect, foreground: LazyMask, **params: Any) -> Image:
        window = Rect(*window)
        view = window.of(img)
        backdrop = self._backdrop(view, **params)
        if backdrop is not None:
            view = cv2.copyTo(view, binarize(window.of(resolve_mask(foreground))), backdrop)
        return self._resized(view)

    def apply_to_mask(self, mask: Mask, *args: Any, window: Rect, **params: Any) -> Mask:
        return cast(Mask, cv2.resize(Rect(*window).of(mask), self.size[::-1], interpolation=cv2.INTER_NEAREST_EXACT))

    def _backdrop(
        self, view: Image, applied: Applied, fill_draw: float, donor_draw: DonorDraw, donors: Donors, **_: Any
    ) -> Image | None:
        if applied == "removed":
            return removal(view, self.fill, fill_draw)
        if applied == "replaced":
            return replacement(donors, self.donor, *view.shape[:2], self.scale, donor_draw)
        return None

    def _resized(self, view: Image) -> Image:
        return cast(Image, cv2.resize(view, self.size[::-1], interpolation=_FLAGS[self.interpolation]))
