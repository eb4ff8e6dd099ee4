"""BG_RM, BG_Random and the negative of BG_Swaps (Ryali et al., arXiv 2103.12719) as Albumentations transforms.

    A.Compose([A.RandomResizedCrop((224, 224)), RemoveBackground(p=0.2), RandomBackground(p=0.2), A.ColorJitter()])(
        image=image, mask=mask, donor={"image": other_image, "mask": other_mask}
    )

Put them after the crop, so that the area bounds are those of the view, and before the photometric transforms, so that
foreground and background share them. Their parameters hold a handful of numbers and no pixels, so that `ReplayCompose`
records stay small; replaying needs the same mask and donors among the inputs.
"""

from typing import Annotated, Any, Literal, Self, cast

import albumentations as A
import numpy as np
from albumentations.core.serialization import SERIALIZABLE_REGISTRY
from albumentations.core.transforms_interface import BaseTransformInitSchema
from pydantic import AfterValidator, Field, model_validator

from bgsweep.augment.background import (
    DonorDraw,
    DonorMode,
    Donors,
    FillMode,
    LazyMask,
    Negative,
    NegativeKind,
    area_verdict,
    random_background,
    removed_background,
)
from bgsweep.augment.inputs import AnyImage, bytes_of, checked_image, chosen_donor, foreground, in_front, with_negative

Share = Annotated[float, Field(ge=0, le=1)]


def ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    """Pydantic validator of a range."""
    if bounds[0] > bounds[1]:
        raise ValueError(f"the lower bound {bounds[0]} is above the upper bound {bounds[1]}")
    return bounds


Scale = Annotated[tuple[Annotated[float, Field(gt=0, le=1)], Share], AfterValidator(ordered)]


class BackgroundSchema(BaseTransformInitSchema):  # type: ignore[misc]
    """Arguments that every background transform accepts."""

    min_area: Share
    max_area: Share
    mask_key: str

    @model_validator(mode="after")
    def _check(self) -> Self:
        ordered((self.min_area, self.max_area))
        return self


class _BackgroundTransform(A.ImageOnlyTransform):  # type: ignore[misc]
    """A transform of views whose foreground is neither too small nor too large, by a mask and perhaps other images."""

    min_area: float
    max_area: float
    mask_key: str
    metadata_key: str = ""  # of a transform that takes other images

    @property
    def targets_as_params(self) -> list[str]:
        return [self.mask_key, self.metadata_key] if self.metadata_key else [self.mask_key]

    def verdict(self, data: dict[str, Any]) -> str | None:
        """`kept_small` or `kept_large` where the view stays as it is."""
        return area_verdict(foreground(data[self.mask_key], None, self.mask_key), self.min_area, self.max_area)

    def apply_with_params(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        # Pixels reach `apply` beside the parameters, which ReplayCompose copies: 0.9 MB for each record with them.
        extra = {"pixels": kwargs[self.mask_key]}
        if self.metadata_key:
            extra["others"] = kwargs[self.metadata_key]
        return cast(dict[str, Any], super().apply_with_params(params | extra, *args, **kwargs))


class RemoveBackground(_BackgroundTransform):
    """BG_RM: put one colour, or noise, behind the foreground.

    Views whose foreground covers less than `min_area` or more than `max_area` of them keep their background. The mask
    and all other targets pass unchanged.

    Args:
        fill: `random_gray` (a random grey level for each view), `black`, `mean` (the view's mean colour) or `noise`
            (uniform, for each pixel and channel).
        min_area: smallest share of the view, 0 to 1.
        max_area: largest share of the view, 0 to 1.
        mask_key: the target that holds the foreground mask, height x width: bool, 0 and 1, floats of 0 to 1, or 0 to
            255 with the foreground above 127.
        p: probability of applying the transform.

    Targets: image, volume. Image types: uint8, and float32 of 0 to 1; three channels.
    """

    class InitSchema(BackgroundSchema):
        fill: FillMode

    def __init__(
        self,
        fill: FillMode = "random_gray",
        min_area: float = 0.01,
        max_area: float = 0.95,
        mask_key: str = "mask",
        p: float = 0.2,
    ):
        super().__init__(p=p)
        self.fill = fill
        self.min_area, self.max_area, self.mask_key = min_area, max_area, mask_key

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        return {"applied": self.verdict(data) or "removed", "fill_draw": self.py_random.random()}

    def apply(self, img: AnyImage, *args: Any, applied: str, fill_draw: float, pixels: LazyMask, **_: Any) -> AnyImage:
        if applied != "removed":
            return img
        image = checked_image(img, "image")
        behind = removed_background(
            bytes_of(image) if self.fill == "mean" else np.empty(img.shape, np.uint8), self.fill, fill_draw
        )
        return in_front(image, foreground(pixels, img.shape[:2], self.mask_key), behind)


class RandomBackground(_BackgroundTransform):
    """BG_Random: put another image's background behind the foreground.

    Views whose foreground covers less than `min_area` or more than `max_area` of them keep their background. The mask
    and all other targets pass unchanged.

    Args:
        donor: `tiled` (only the donor's background: a plane tiled with its largest background-only rectangle) or
            `plain` (the other image as it is, its own foreground included).
        scale: range of the plain donor's window, as a share of the largest window of the view's shape.
        min_area: smallest share of the view, 0 to 1.
        max_area: largest share of the view, 0 to 1.
        mask_key: the target that holds the foreground mask, height x width: bool, 0 and 1, floats of 0 to 1, or 0 to
            255 with the foreground above 127.
        metadata_key: the input that holds the donors: a dictionary with `image` and `mask` (see `background.Donor`), a
            list of them from which one is drawn, or a function that gives either and is called only when needed.
        p: probability of applying the transform.

    Targets: image, volume. Image types: uint8, and float32 of 0 to 1; three channels.
    """

    class InitSchema(BackgroundSchema):
        donor: DonorMode
        scale: Scale
        metadata_key: str

    def __init__(
        self,
        donor: DonorMode = "tiled",
        scale: tuple[float, float] = (0.2, 1.0),
        min_area: float = 0.01,
        max_area: float = 0.95,
        mask_key: str = "mask",
        metadata_key: str = "donor",
        p: float = 0.2,
    ):
        super().__init__(p=p)
        self.donor, self.scale, self.metadata_key = donor, scale, metadata_key
        self.min_area, self.max_area, self.mask_key = min_area, max_area, mask_key

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        uniform = self.py_random.random
        return {"applied": self.verdict(data) or "replaced", "donor_draw": (uniform(), uniform(), uniform(), uniform())}

    def apply(
        self,
        img: AnyImage,
        *args: Any,
        applied: Literal["replaced", "kept_small", "kept_large"],
        donor_draw: DonorDraw,
        pixels: LazyMask,
        others: Donors,
        **_: Any,
    ) -> AnyImage:
        if applied != "replaced":
            return img
        image = checked_image(img, "image")
        donor = chosen_donor(others, self.donor, donor_draw[0], self.metadata_key)
        behind = random_background(donor, self.donor, img.shape[0], img.shape[1], self.scale, donor_draw)
        return in_front(image, foreground(pixels, img.shape[:2], self.mask_key), behind)


class SwapNegative(_BackgroundTransform):
    """The negative of BG_Swaps: another image in front of the background of this one, the query.

    A query whose foreground is out of the area bounds comes back unchanged, and is no negative of itself: leave it out.
    The mask and all other targets pass unchanged.

    Args:
        kind: `silhouette` (the query's foreground filled with a crop of the other image) or `foreground` (the
            foreground of a crop of the other image, in front of tiles of the query's background).
        scale: range of the crop's share of the other image.
        min_area: smallest share of foreground in the query, and with `foreground` in the other image's crop, 0 to 1.
        max_area: largest share.
        mask_key: the target that holds the query's foreground mask, as in `RandomBackground`.
        metadata_key: the input that holds the other images, as the donors of `RandomBackground`.
        p: probability of applying the transform.

    Targets: image, volume. Image types: uint8, and float32 of 0 to 1; three channels.
    """

    class InitSchema(BackgroundSchema):
        kind: NegativeKind
        scale: Scale
        metadata_key: str

    def __init__(
        self,
        kind: NegativeKind = "silhouette",
        scale: tuple[float, float] = (0.2, 1.0),
        min_area: float = 0.01,
        max_area: float = 0.95,
        mask_key: str = "mask",
        metadata_key: str = "other",
        p: float = 1.0,
    ):
        super().__init__(p=p)
        self.kind, self.scale, self.metadata_key = kind, scale, metadata_key
        self.min_area, self.max_area, self.mask_key = min_area, max_area, mask_key

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        return {
            "applied": self.verdict(data) or "swapped",
            "pick": self.py_random.random(),
            "seed": self.py_random.getrandbits(53),
        }

    def apply(
        self,
        img: AnyImage,
        *args: Any,
        applied: str,
        pick: float,
        seed: int,
        pixels: LazyMask,
        others: Donors,
        **_: Any,
    ) -> AnyImage:
        if applied != "swapped":
            return img
        image = checked_image(img, "image")
        # As a tiled donor, which must have a mask, where the other's own foreground is shown.
        other = chosen_donor(others, "tiled" if self.kind == "foreground" else "plain", pick, self.metadata_key)
        negative = Negative(kind=self.kind, image=other["image"], mask=other.get("mask"), seed=seed)
        mask = foreground(pixels, img.shape[:2], self.mask_key)
        return with_negative(image, mask, negative, self.scale, self.min_area, self.max_area)


# The names that earlier versions wrote into policies.
SERIALIZABLE_REGISTRY["bgsweep.augment.background.RemoveBackground"] = RemoveBackground
SERIALIZABLE_REGISTRY["bgsweep.augment.background.RandomBackground"] = RandomBackground
