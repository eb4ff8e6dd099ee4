"""Views: crops, colours and background augmentations."""

from math import ceil, sqrt
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from bgsweep.config import albumentations_steps
from bgsweep.config.base import Count, NonNegative, Positive, Probability, Section
from bgsweep.config.plugins import Transform
from bgsweep.config.schedule import PerView, Schedule, ScheduledPerView, highest

Range = tuple[Positive, Positive]


def _ordered(name: str, bounds: tuple[float, float]) -> None:
    if bounds[0] > bounds[1]:
        raise ValueError(f"{name}: the lower bound {bounds[0]} is above the upper bound {bounds[1]}")


class Views(Section):
    """Crops and colours of views; the defaults are MoCo-v2's."""

    size: Count = Field(224, description="height and width of a view in pixels")
    scale: Range = Field((0.2, 1.0), description="area of a crop, as a share of the image")
    ratio: Range = Field((3 / 4, 4 / 3), description="width of a crop by its height, before it is resized")
    flip: Probability = Field(0.5, description="probability of a horizontal flip")
    jitter: tuple[NonNegative, NonNegative, NonNegative, Annotated[float, Field(ge=0, le=0.5)]] = Field(
        (0.4, 0.4, 0.4, 0.1), description="brightness, contrast, saturation, hue"
    )
    jitter_p: Probability = Field(0.8, description="probability of the color jitter")
    gray: Probability = Field(0.2, description="probability of grey")
    blur: PerView = Field(0.5, description="also a pair (first view, others), or three: first, second, small crops")
    blur_sigma: Range = Field((0.1, 2.0), description="bounds of the Gaussian blur's sigma in pixels")
    solarize: PerView = Field(0.0, description="as blur")
    interpolation: Literal["linear", "area", "bilinear", "bicubic"] = Field(
        "linear",
        description="of the crop's resize: linear does not antialias and is fastest; bilinear and bicubic are those of "
        "Pillow and torchvision, antialiased where they shrink, as is area (benchmarks/RESULTS.md)",
    )
    color: Literal["exact", "fast"] = Field(
        "exact", description="exact: torchvision's colour operations; fast: one matrix instead, with approximate hue"
    )
    photometric: Literal["cpu", "device"] = Field(
        "cpu", description="device that computes jitter, grey, blur and solarise"
    )
    albumentations: list[Any] | None = Field(
        None,
        description="Albumentations' pixel-level transforms in place of jitter, gray, blur and solarize, such as "
        "[{ColorJitter: {brightness: 0.4, p: 0.8}}, ToGray]; also a list for each kind of view, as blur",
    )
    extra: tuple[Transform, ...] = Field(
        (), description="transforms of other packages after the colours of each view: [{name: package.module:Class, …}]"
    )
    small_crops: int = Field(0, ge=0, description="multi-crop: number of small views besides the two large ones")
    small_size: Count = Field(96, description="height and width of small crops in pixels")
    small_scale: Range = Field((0.05, 0.14), description="as scale, of small crops")

    @property
    def sizes(self) -> tuple[int, ...]:
        """The heights (and widths) in pixels that views have, that of the large ones first."""
        return (self.size, self.small_size) if self.small_crops else (self.size,)

    @property
    def least_side(self) -> int:
        """Shorter side in pixels from which no crop of an image, nor evaluation's centre view, has to be enlarged."""
        narrowest = min(self.ratio[0], 1 / self.ratio[1])
        kinds = [(self.size, self.scale[0])] + [(self.small_size, self.small_scale[0])] * bool(self.small_crops)
        return ceil(max(self.size * 8 / 7, *(size / sqrt(share * narrowest) for size, share in kinds)))

    @field_validator("albumentations", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return albumentations_steps.plain(value)

    @model_validator(mode="after")
    def _check(self) -> Self:
        _ordered("scale", self.scale)
        _ordered("ratio", self.ratio)
        _ordered("blur_sigma", self.blur_sigma)
        _ordered("small_scale", self.small_scale)
        if self.extra and self.photometric == "device":
            raise ValueError("extra: these transforms follow the colours, in the loader; set views.photometric: cpu")
        if self.albumentations is not None:
            if self.photometric == "device":
                raise ValueError("albumentations: these transforms run in the loader; set views.photometric: cpu")
            albumentations_steps.check(self.albumentations)
        if self.scale[1] > 1 or self.small_scale[1] > 1:
            raise ValueError("scale: a crop cannot cover more than the whole image; set the upper bound to 1.0")
        return self


class Background(Section):
    """Background augmentations (arXiv 2103.12719), each with its probability for a view, or for a pair of views.

    BG_RM and BG_Random are drawn independently; where both fire, the background is removed. Each probability may be a
    schedule over training: `{from: 0.4, to: 0, course: cosine}`.
    """

    remove: ScheduledPerView = Field(0.0, description="BG_RM: the background is filled")
    random: ScheduledPerView = Field(0.0, description="BG_Random: the background is another image's")
    swap: ScheduledPerView = Field(
        0.0,
        description="BG_Swaps: share of images whose key (second view) gets another image's background, while their "
        "query gets a negative on its own",
    )
    swap_form: Literal["full", "negative_only"] = Field(
        "full", description="negative_only: the key keeps its background; the query still gets the negative"
    )
    swap_negative: Literal["silhouette", "foreground"] = Field(
        "silhouette",
        description="silhouette: the query with its foreground filled from another image; foreground: another image's "
        "foreground on the query's background",
    )
    fill: Literal["random_gray", "black", "mean", "noise"] = Field(
        "random_gray", description="the background that BG_RM puts in place"
    )
    donor: Literal["tiled", "inpainted", "plain"] = Field(
        "tiled",
        description="tiled: from the donor's largest background rectangle; inpainted: the donor with its foreground "
        "painted over; plain: the donor as it is",
    )
    min_area: Probability = Field(0.01, description="views whose foreground covers less keep their background")
    max_area: Probability = Field(0.95, description="views whose foreground covers more keep their background")
    most_kept: Probability = Field(
        0.5, description="share of views that may keep their background for these reasons; with more no run begins"
    )
    apply_to: Literal["global", "all"] = Field("global", description="`all` includes small crops")
    foreground_scale: Annotated[float, Field(ge=1)] = Field(
        1.0,
        description="on a new background the foreground's sides are multiplied or divided by up to this, drawn "
        "log-uniformly; 1 leaves it as it is",
    )
    foreground_position: int = Field(
        0,
        ge=0,
        le=100,
        description="0: the foreground stays where it is; n: its position in the view is the mean of n uniform draws "
        "(Bates): 1 is uniform, more are nearer the middle",
    )
    blend: Literal["hard", "soft"] = Field(
        "hard", description="hard: each pixel is foreground or background; soft: mixed by the mask's grey levels"
    )
    mask_blur: NonNegative = Field(
        0.0, description="sigma, in pixels of the view, of a Gaussian over the mask: blends along the edge"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        _ordered("min_area, max_area", (self.min_area, self.max_area))
        ends = (self.swap.start, self.swap.end) if isinstance(self.swap, Schedule) else (self.swap,)
        if any(isinstance(end, tuple) for end in ends):
            raise ValueError("swap: BG_Swaps is drawn once for an image; give one probability, not a list")
        return self

    @property
    def active(self) -> bool:
        """True if any view can get a background augmentation, which needs masks."""
        return any(highest(p) > 0 for p in (self.remove, self.random, self.swap))

    @property
    def scheduled(self) -> bool:
        """True if any probability changes during training."""
        return any(isinstance(p, Schedule) for p in (self.remove, self.random, self.swap))
