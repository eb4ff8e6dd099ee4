"""Images and masks: where they come from, how they are split, decoded and loaded."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from bgsweep.config.base import Count, NonNegative, Probability, Section
from bgsweep.errors import NO_CREDENTIALS, has_password


class Shortcut(Section):
    """Recompose the training photographs so that the background gives the class away."""

    rho: Probability = Field(
        0.95, description="share of photographs whose background comes from their class's own pool"
    )
    seed: int = Field(0, ge=0)


class MaskNoise(Section):
    """Spoil the training photographs' masks on purpose, to see how good masks must be. Pixels are those of `resize`."""

    drop: Probability = Field(0.0, description="share of photographs whose mask is lost: they keep their background")
    other: Probability = Field(0.0, description="share of photographs that get another photograph's mask, scaled")
    box: Probability = Field(0.0, description="share of photographs whose mask becomes its bounding box")
    grow: int = Field(0, ge=-1000, le=1000, description="pixels that all masks are dilated by; negative: eroded")
    blur: NonNegative = Field(0.0, description="sigma in pixels of a Gaussian over all masks: rounds their outlines")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.drop + self.other + self.box > 1:
            raise ValueError("drop, other and box are shares of the same photographs: their sum is above 1; lower one")
        return self

    @property
    def active(self) -> bool:
        return any((self.drop, self.other, self.box, self.grow, self.blur))


class Data(Section):
    """Where images and masks come from. `images: sample` names the photographs that come with bgsweep."""

    images: str = Field("sample", description="folder that holds the splits, or `sample`")
    masks: str | None = Field(None, description="folder that mirrors `images`, with one PNG for each image")
    pack: str | None = Field(None, description="folder or URI that `bgsweep pack` wrote, in place of both")
    pack_cache_gb: NonNegative = Field(20.0, description="local disk for the shards of a pack that a URI names, in GB")
    train: str = Field("train", description="sub-folder of `images`; `.` for the folder itself")
    validation: str | None = Field("validation", description="sub-folder; null holds out a share of `train`")
    test: str | None = Field("test", description="sub-folder; null holds out another share of `train`")
    holdout: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="share of each class that is held out")
    holdout_seed: int = Field(0, ge=0, description="decides which images are held out")
    resize: Count | None = Field(None, description="shorter side in pixels that images are brought to when decoded")
    fast_jpeg: bool = Field(False, description="decode JPEGs with a cheaper DCT, one grey level off on average")
    cache: bool = Field(False, description="keep decoded images in memory, shared by all trials of a process")
    loader: Literal["local", "cluster"] = Field(
        "local", description="who makes views: processes of this machine, or of the Ray cluster's nodes with free cores"
    )
    loader_workers: int | None = Field(None, ge=0, description="processes that make views; null: chosen by the machine")
    shortcut: Shortcut | None = None
    mask_noise: MaskNoise = MaskNoise()

    @field_validator("train", "validation", "test")
    @classmethod
    def _below(cls, split: str | None) -> str | None:
        if split and (split.startswith("/") or ".." in split.split("/")):
            raise ValueError("a split is a sub-folder of data.images; it cannot lead out of it")
        return split

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.validation is None and self.test is None and self.holdout >= 0.5:
            raise ValueError("holdout: with validation and test both held out, less than .5 leaves any for training")
        return self

    @field_validator("images", "masks", "pack")
    @classmethod
    def _no_credentials(cls, place: str | None) -> str | None:
        if place and has_password(place):
            raise ValueError(NO_CREDENTIALS)
        return place

    @property
    def has_masks(self) -> bool:
        return self.images == "sample" or self.masks is not None or self.pack is not None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.pack is not None and (self.images != "sample" or self.masks is not None):
            raise ValueError(
                "pack: holds photographs and masks, so that images and masks cannot be named beside it; leave them out"
            )
        if self.loader == "cluster" and not self.loader_workers:
            raise ValueError(
                "loader: cluster needs loader_workers: how many cores of the cluster make views for each worker"
            )
        return self
