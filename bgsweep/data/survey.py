"""A look at a set's files before a run meets them."""

from typing import NamedTuple

from bgsweep.data.order import spread_evenly
from bgsweep.data.sample import ImageDataset
from bgsweep.errors import UnreadableImage

LOOKED_AT = 2_000


class Survey(NamedTuple):
    """How many of a set's images were looked at, and those that cannot be read, or whose masks cannot, by reason."""

    looked_at: int
    unreadable: list[str]


def survey(source: ImageDataset) -> Survey:
    """Decode images and masks spread evenly over a set."""
    chosen, unreadable = spread_evenly(len(source), LOOKED_AT).tolist(), []
    for index in chosen:
        try:
            _ = source[index].mask
        except UnreadableImage as error:
            unreadable.append(str(error))
    return Survey(len(chosen), unreadable)
