"""The images of a listing, or their masks, as a tree of files: what `pack` and `masks` read."""

import numpy as np
import numpy.typing as npt

from bgsweep.data.datasets.listing import Listing
from bgsweep.errors import UnreadableImage, UserError
from bgsweep.storage.tree import FileStat

BY_NAME = {"pattern": "{name}"}
"""The part of a mask format by which a `ListingTree` names masks: as their images."""


class ListingTree:
    """Images by their names in a listing, or masks by the names of their images; none can be written.

    Args:
        at: place of each in the files of `holder`; by default those of the images in the listing's own.
        uri: name in errors.
    """

    def __init__(
        self,
        listing: Listing,
        at: npt.NDArray[np.int64] | None = None,
        holder: Listing | None = None,
        uri: str | None = None,
    ) -> None:
        self._listing, self._holder, self.uri = listing, holder or listing, uri or listing.uri
        self._at = listing.image_at if at is None else at

    def files(self) -> dict[str, FileStat]:
        at = np.asarray(self._at)
        there = np.flatnonzero(at[:, 0] >= 0)
        stats = self._holder.stats(at[there])
        return {self._listing.names[index]: stat for index, stat in zip(there.tolist(), stats, strict=True)}

    def read(self, name: str) -> bytes:
        at = self._at[self._listing.find(name)]
        if at[0] < 0:
            raise UnreadableImage(f"{self.uri}: none of {name}")
        return self._holder.read(at)

    def write(self, name: str, data: bytes) -> None:
        raise self._read_only()

    def remove(self, name: str) -> None:
        raise self._read_only()

    def sweep(self) -> None:
        raise self._read_only()

    def _read_only(self) -> UserError:
        return UserError(f"{self.uri}: only read here; name a folder to write to")
