"""The names under which files that list or hold images have their images, labels, masks and splits."""

from pydantic import Field

from bgsweep.config.base import Section

INCLUDED = "included"
"""The value of `data.masks` that takes the masks that come with the images in their file."""


class Columns(Section):
    """Names in a file that lists or holds images: of columns, of fields in JSON, of endings of a tar's members."""

    image: str | None = Field(
        None,
        description="paths of a CSV or JSONL file (default: path), the images of a parquet or arrow file (default: the "
        "only column of images), a tar's image ending, such as jpg (default: any image)",
    )
    label: str | None = Field(
        None,
        description="labels (default: label; in a tar .cls, or label in .json; of CIFAR-100 fine_labels); `none`: read "
        "no labels",
    )
    mask: str | None = Field(None, description="masks, for `masks: included` (default: mask; in a tar mask.png)")
    split: str | None = Field(None, description="splits of a CSV or JSONL file (default: split)")
    root: str | None = Field(
        None, description="folder at which a CSV or JSONL file's relative paths begin; null: the file's own"
    )


def is_pattern(path: str) -> bool:
    """True if a path stands for several files: it has wildcards, or braces as WebDataset's have."""
    return any(sign in path for sign in "*?{[")
