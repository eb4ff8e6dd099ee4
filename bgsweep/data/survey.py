"""A survey of a dataset's files for `bgsweep doctor`: which ones cannot be read."""

from typing import NamedTuple

from bgsweep.data.order import spread_evenly
from bgsweep.data.sample import ImageDataset
from bgsweep.errors import UnreadableImage

LOOKED_AT = 2_000


class Survey(NamedTuple):
    """The number of images that were decoded, and the error of each that cannot be read, or whose mask cannot."""

    looked_at: int
    unreadable: list[str]


def survey(dataset: ImageDataset) -> Survey:
    """Decode images and masks spread evenly over a dataset."""
    chosen, unreadable = spread_evenly(len(dataset), LOOKED_AT).tolist(), []
    for index in chosen:
        try:
            # The image is decoded at once, its mask on first use.
            _ = dataset[index].mask
        except UnreadableImage as error:
            unreadable.append(str(error))
    return Survey(len(chosen), unreadable)
