"""BG_RM and BG_Random (Ryali et al., arXiv 2103.12719, section 3) as Albumentations transforms.

    A.Compose([A.RandomResizedCrop((224, 224)), RemoveBackground(p=0.2), RandomBackground(p=0.2), A.ColorJitter()])(
        image=image, mask=mask, donor={"image": other_image, "mask": other_mask}
    )

Put them after the crop, so that the area bounds are those of the view, and before the photometric transforms, so that
foreground and background share them. Random draws are a handful of numbers in the transform's parameters; pixels are
made when the transform is applied, so that `ReplayCompose` records stay small.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict, cast

import albumentations as A
import cv2
import numpy as np
from albumentations.core.transforms_interface import BaseTransformInitSchema
from pydantic import AfterValidator, Field
from typing_extensions import NotRequired

from bgsweep.augment.composite import (
    Image,
    Mask,
    Rect,
    binarize,
    foreground_area,
    largest_background_rectangle,
    solid,
    tile,
)

FillMode = Literal["random_gray", "black", "mean", "noise"]
DonorMode = Literal["tiled", "plain"]
Share = Annotated[float, Field(ge=0, le=1)]


class Donor(TypedDict):
    """The image that gives its background; `tiled` needs its mask or, computed in advance, its background rectangle."""

    image: Image
    mask: NotRequired["Mask | Callable[[], Mask] | None"]
    rect: NotRequired[Rect | None]


Donors = Donor | Sequence[Donor] | Callable[[], "Donor | Sequence[Donor]"]
DonorDraw = tuple[float, float, float, float]


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"the lower bound {bounds[0]} is above the upper bound {bounds[1]}")
    return bounds


Scale = Annotated[tuple[Annotated[float, Field(gt=0, le=1)], Share], AfterValidator(_ordered)]


class AreaSchema(BaseTransformInitSchema):
    """What all background transforms accept."""

    min_area: Share
    max_area: Share
    mask_key: str


def resolve_mask(mask: "Mask | Callable[[], Mask]") -> Mask:
    """Masks may be handed over as functions, so that they are decoded only when a transform was drawn."""
    return mask() if callable(mask) else mask


def area_verdict(mask: Mask, min_area: float, max_area: float) -> str | None:
    """``kept_small`` or ``kept_large`` where the foreground's share of the view is out of bounds."""
    area = foreground_area(mask)
    if area < min_area:
        return "kept_small"
    return "kept_large" if area > max_area else None


def removal(view: Image, mode: FillMode, draw: float) -> Image:
    """What BG_RM puts behind the foreground of a view.

    Args:
        view: height x width x channels; `mean` is its own mean colour, foreground included.
        draw: uniform in [0, 1); the grey level of `random_gray` (as in DiLo, Zhao et al. 2021) or the seed of `noise`.
    """
    height, width, channels = view.shape
    if mode == "noise":
        generator = np.random.default_rng(int(draw * 2**53))
        return np.frombuffer(bytearray(generator.bytes(view.size)), np.uint8).reshape(view.shape)
    levels = {"random_gray": [int(draw * 256)] * channels, "black": [0] * channels}
    return solid(height, width, levels[mode] if mode in levels else cv2.mean(view)[:channels])


def replacement(
    donors: Donors, mode: DonorMode, height: int, width: int, scale: tuple[float, float], draw: DonorDraw
) -> Image:
    """What BG_Random puts behind the foreground of a view of height x width.

    Args:
        donors: one donor, or several from which one is drawn.
        mode: `tiled` shows the plane tiled with the donor's largest background-only rectangle, at its own resolution
            and a random phase; a donor without background is shown plain. `plain` shows the donor as it is, with its
            own foreground: a random window of the view's shape, brought to the view's size.
        scale: range of that window's share of the largest one that fits.
        draw: which donor, which share, how far down, how far right; each uniform in [0, 1).
    """
    pick, share, down, right = draw
    found = donors() if callable(donors) else donors
    donor = cast(Donor, found if isinstance(found, Mapping) else found[int(pick * len(found))])
    image = donor["image"]
    if mode == "tiled" and (rect := _background_rect(donor)) is not None:
        return tile(image, rect, height, width, int(down * rect.height), int(right * rect.width))
    zoom = min(image.shape[0] / height, image.shape[1] / width)
    zoom *= (scale[0] + share * (scale[1] - scale[0])) ** 0.5
    rows, columns = max(1, round(height * zoom)), max(1, round(width * zoom))
    top, left = int(down * (image.shape[0] - rows + 1)), int(right * (image.shape[1] - columns + 1))
    window = image[top : top + rows, left : left + columns]
    return cast(Image, cv2.resize(window, (width, height), interpolation=cv2.INTER_LINEAR))


def _background_rect(donor: Donor) -> Rect | None:
    if "rect" in donor:
        return donor["rect"]
    mask = donor.get("mask")
    if mask is None:
        raise ValueError("a donor without a mask cannot be tiled: give its `mask` or use donor mode 'plain'")
    return largest_background_rectangle(resolve_mask(mask))


def draw_donor(generator: random.Random) -> DonorDraw:
    return generator.random(), generator.random(), generator.random(), generator.random()


class _BackgroundTransform(A.ImageOnlyTransform):
    """What both transforms share: the area bounds, and sources that reach `apply` without passing through params."""

    mask_key: str
    metadata_key: str | None = None
    min_area: float
    max_area: float

    @property
    def targets_as_params(self) -> list[str]:
        return [key for key in (self.mask_key, self.metadata_key) if key is not None]

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        verdict = area_verdict(resolve_mask(data[self.mask_key]), self.min_area, self.max_area)
        return {"applied": verdict or self.outcome, "draw": self.draw()}

    outcome: str

    def draw(self) -> Any:
        raise NotImplementedError

    def behind(self, view: Image, draw: Any, donor: Any) -> Image:
        raise NotImplementedError

    def apply_with_params(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        sources = {"foreground": kwargs.get(self.mask_key), "donor": kwargs.get(self.metadata_key or "")}
        return cast(dict[str, Any], super().apply_with_params({**params, **sources}, *args, **kwargs))

    def apply(self, img: Image, *args: Any, **params: Any) -> Image:
        if params["applied"] != self.outcome:
            return img
        background = self.behind(img, params["draw"], params["donor"])
        return cast(Image, cv2.copyTo(img, binarize(resolve_mask(params["foreground"])), background))


class RemoveBackground(_BackgroundTransform):
    """BG_RM: put one colour, or noise, behind the foreground.

    Views whose foreground covers less than `min_area` or more than `max_area` of them keep their background. The mask
    and all other targets pass unchanged.

    Args:
        fill: `random_gray` (a random grey level for each view), `black`, `mean` (the view's mean colour) or `noise`
            (uniform, for each pixel and channel).
        min_area: smallest share of the view, 0 to 1.
        max_area: largest share of the view, 0 to 1.
        mask_key: the target that holds the foreground mask, height x width, uint8, foreground above 127.
        p: probability of applying the transform.

    Targets: image, volume. Image types: uint8.
    """

    outcome = "removed"

    class InitSchema(AreaSchema):
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
        self.fill = fill  # type: ignore[assignment]  # Albumentations' own transforms keep a colour there
        self.min_area, self.max_area, self.mask_key = min_area, max_area, mask_key

    def draw(self) -> float:
        return self.py_random.random()

    def behind(self, view: Image, draw: float, donor: None) -> Image:
        return removal(view, cast(FillMode, self.fill), draw)


class RandomBackground(_BackgroundTransform):
    """BG_Random: put another image's background behind the foreground.

    Views whose foreground covers less than `min_area` or more than `max_area` of them keep their background. The mask
    and all other targets pass unchanged.

    Args:
        donor: `tiled` (only the donor's background: a plane tiled with its largest background-only rectangle) or
            `plain` (the whole other image as it is, with its own foreground).
        scale: range of the plain donor's window, as a share of the largest window of the view's shape.
        min_area: smallest share of the view, 0 to 1.
        max_area: largest share of the view, 0 to 1.
        mask_key: the target that holds the foreground mask, height x width, uint8, foreground above 127.
        metadata_key: the input that holds the donors: a dictionary with `image` and `mask` (see `Donor`), a list of
            them from which one is drawn, or a function that gives either.
        p: probability of applying the transform.

    Targets: image, volume. Image types: uint8.
    """

    outcome = "replaced"
    metadata_key: str

    class InitSchema(AreaSchema):
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

    def draw(self) -> DonorDraw:
        return draw_donor(self.py_random)

    def behind(self, view: Image, draw: DonorDraw, donor: Donors) -> Image:
        return replacement(donor, self.donor, *view.shape[:2], self.scale, draw)
