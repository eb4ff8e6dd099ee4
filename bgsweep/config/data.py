"""Images and masks: where they come from, how they are split, decoded and loaded."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from bgsweep.config.base import Count, NonNegative, Positive, Probability, Section
from bgsweep.config.columns import INCLUDED, Columns, is_pattern
from bgsweep.config.mask_format import OWN_ALPHA, MaskFormat, imported_first
from bgsweep.config.plugins import Dataset
from bgsweep.errors import NO_CREDENTIALS, has_password


class Shortcut(Section):
    """Recompose the training images so that the background predicts the class."""

    rho: Probability = Field(0.95, description="share of images whose background comes from their class's own pool")
    seed: int = Field(0, ge=0)


class MaskNoise(Section):
    """Degrade the training masks on purpose, to measure how good masks must be. Pixels are those after `resize`."""

    drop: Probability = Field(0.0, description="share of images that lose their mask, and so keep their background")
    other: Probability = Field(0.0, description="share of images that get another image's mask, scaled")
    box: Probability = Field(0.0, description="share of images whose mask becomes its bounding box")
    grow: int = Field(0, ge=-1000, le=1000, description="pixels by which all masks are dilated; negative: eroded")
    blur: NonNegative = Field(0.0, description="sigma in pixels of a Gaussian over all masks: rounds their outlines")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.drop + self.other + self.box > 1:
            raise ValueError("drop, other and box are shares of the same images: their sum is above 1; lower one")
        return self

    @property
    def active(self) -> bool:
        """True if any noise is configured."""
        return any((self.drop, self.other, self.box, self.grow, self.blur))


class Data(Section):
    """Images, masks and splits. `images: sample` names the images that come with bgsweep."""

    images: str = Field(
        "sample",
        description="folder that holds the splits, `sample`, or files that list or hold images (docs/data-formats.md)",
    )
    columns: Columns = Field(Columns(), description="names in a file that lists or holds images")
    masks: str | None = Field(
        None,
        description="folder that mirrors `images`, with one PNG for each image; `alpha`: the images' own alpha channel;"
        " `included`: those in the file of the images",
    )
    mask_format: MaskFormat = Field(MaskFormat(), description="mask files with other names or contents")
    pack: str | None = Field(None, description="folder or URI written by `bgsweep pack`, instead of both")
    dataset: Dataset | None = Field(
        None, description="a dataset of another package, instead of images: {name: package.module:Class, …}"
    )
    pack_cache_gb: NonNegative = Field(20.0, description="local disk, in GB, for shards of a pack at a URI")
    train: str = Field("train", description="sub-folder of `images`; `.` for the folder itself")
    validation: str | None = Field("validation", description="sub-folder; null holds out a share of `train`")
    test: str | None = Field("test", description="sub-folder; null holds out another share of `train`")
    holdout: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="share of each class that is held out")
    holdout_seed: int = Field(0, ge=0, description="seed that chooses the images held out")
    resize: Count | None = Field(
        None, description="pixels that the shorter side is resized to when an image is decoded"
    )
    decode_side: Count | None = Field(
        None,
        description="decode images and masks at 1/2, 1/4 or 1/8 of their size, as long as the shorter side keeps this "
        "many pixels; null: at their size",
    )
    fast_jpeg: bool = Field(False, description="decode JPEGs with a cheaper DCT, one grey level off on average")
    cache: bool = Field(False, description="keep decoded images in memory, once for all trials of a sweep on a machine")
    loader: Literal["local", "cluster"] = Field(
        "local",
        description="processes that make views: on this machine, or on nodes of the Ray cluster with free cores",
    )
    loader_workers: int | None = Field(
        None, ge=0, description="number of processes that make views; null: chosen from the cores"
    )
    loader_memory_gb: Positive | None = Field(
        None, description="GB for batches made ahead on each worker; null: a quarter of its share of the memory"
    )
    shortcut: Shortcut | None = None
    mask_noise: MaskNoise = MaskNoise()

    @field_validator("train", "validation", "test")
    @classmethod
    def _below(cls, split: str | None) -> str | None:
        if split and (split.startswith("/") or ".." in split.split("/")):
            raise ValueError("a split must be a sub-folder of data.images; leave out .. and a leading /")
        return split

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.validation is None and self.test is None and self.holdout >= 0.5:
            raise ValueError(
                "holdout: validation and test are both held out, which leaves nothing to train on; set it below 0.5"
            )
        return self

    @field_validator("images", "masks", "pack")
    @classmethod
    def _no_credentials(cls, uri: str | None) -> str | None:
        if uri and has_password(uri):
            raise ValueError(NO_CREDENTIALS)
        return uri

    @property
    def has_masks(self) -> bool:
        """True if the images come with masks."""
        if self.dataset is not None:
            return self.dataset.has_masks
        return self.images == "sample" or self.masks is not None or self.pack is not None

    @property
    def included_masks(self) -> str:
        """The end of an error about masks where `images` is a file, which may hold them; else empty."""
        return f" (`{INCLUDED}`, if {self.images} has them)" if Path(self.images).suffix else ""

    @property
    def missing_images(self) -> str:
        """The beginning of an error where `images` is a folder that this machine does not have; else empty."""
        there = self.images == "sample" or "://" in self.images or Path(self.images).expanduser().exists()
        return "" if there or is_pattern(self.images) else f"data.images: no folder {self.images} on this machine; "

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.pack is not None and (self.images != "sample" or self.masks is not None):
            raise ValueError("pack: it holds images and masks already; leave data.images and data.masks out")
        if self.dataset is not None:
            for key in ("pack", "masks", "resize", "decode_side"):
                if getattr(self, key) is not None:
                    raise ValueError(
                        f"{key}: data.dataset gives images and masks as they are; leave one of the two out"
                    )
            if self.images != "sample":
                raise ValueError("images: data.dataset takes their place; leave one of the two out")
        if self.masks is not None and self.images == "sample":
            raise ValueError(
                "masks: data.images is `sample`, whose images come with masks of their own; set data.images to your "
                "images, or leave data.masks out"
            )
        if self.resize is not None and self.decode_side is not None:
            raise ValueError("decode_side: resize sets the size of images and masks; leave one of the two out")
        if self.columns != Columns() and (self.images == "sample" or self.dataset is not None):
            raise ValueError("columns: they are those of a file in data.images; name it, or leave them out")
        self._check_mask_format()
        if self.loader == "cluster" and not self.loader_workers:
            raise ValueError(
                "loader: cluster needs loader_workers, the number of cores that make views for each worker; set it"
            )
        return self

    def _check_mask_format(self) -> None:
        plain = self.mask_format == MaskFormat()
        if not plain and (self.masks is None or self.masks == OWN_ALPHA):
            raise ValueError("mask_format: it describes files in data.masks, and none are named; leave it out")
        if found := imported_first(self.masks, self.mask_format.pattern):
            raise ValueError(": ".join(found))
        if self.masks == OWN_ALPHA and Path(OWN_ALPHA).is_dir():
            raise ValueError(
                f"masks: {OWN_ALPHA} is the images' own alpha channel, and a folder here; write ./{OWN_ALPHA} for that"
            )
