"""The masks of a `Listed` split: in the images' files, in other files, or in a folder."""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bgsweep.config.columns import INCLUDED
from bgsweep.data.datasets.folder import DIGESTED_WHOLE, digest_of_files, split_folder
from bgsweep.data.datasets.formats import open_listing
from bgsweep.data.datasets.listing import Listing
from bgsweep.data.missing_masks import MOST_MISSING, MaskFile, mask_file, mask_name, match_masks, missing_among
from bgsweep.errors import UnreadableImage, UserError
from bgsweep.images.files import read_file, walk
from bgsweep.storage.hashing import digest
from bgsweep.storage.shared_arrays import Arrays, index_folder, shared_arrays

Places = npt.NDArray[np.int64]


class Masks(Protocol):
    """Encoded masks by the number of their image."""

    missing: npt.NDArray[np.bool_]
    in_files: bool
    """Each mask is a file by itself, which `told` names."""

    def read(self, index: int) -> bytes:
        """The encoded mask; raises UnreadableImage."""
        ...

    def told(self, index: int) -> str:
        """The place of the mask in words, for errors."""
        ...

    def digest(self) -> str:
        """As `ImageDataset.digests` has it."""
        ...


def open_masks(listing: Listing, split: str, masks: str, pattern: str) -> Masks:
    """The masks that `data.masks` names.

    Raises:
        UserError: there are none, or too few.
    """
    ids = listing.ids(split)
    if masks == listing.uri:  # the images' own alpha channel
        return PlacedMasks(listing, listing.part(listing.image_at, split), ids)
    if masks == INCLUDED:
        if not listing.has_masks:
            raise UserError(
                f"data.masks: no masks are included in {listing.uri}; name their column, or their members' "
                "ending, by data.columns.mask, or make them: `bgsweep masks make`"
            )
        found = PlacedMasks(listing, listing.part(listing.mask_at, split), ids)
    elif (other := open_listing(masks)) is not None:
        found = PlacedMasks(other, listing.part(matched_places(listing, other), split), ids)
    else:
        return MaskFiles(split_folder(Path(masks).expanduser(), split, "data.masks"), ids, pattern)
    missing = missing_among(ids, found.missing)
    if missing is not None and missing.missing > MOST_MISSING * missing.images:
        raise UserError(
            f"data.masks: {masks}: {missing}; up to {MOST_MISSING:.0%} may be missing (with more, background "
            "augmentations are rarer than configured): see `bgsweep masks make`"
        )
    return found


class PlacedMasks:
    """Masks at places of the files of a listing."""

    in_files = False

    def __init__(self, listing: Listing, at: Places, ids: Sequence[str]) -> None:
        self._listing, self._at, self._ids = listing, at, ids
        self.missing = np.asarray(at)[:, 0] < 0

    def read(self, index: int) -> bytes:
        return self._listing.read(self._at[index])

    def told(self, index: int) -> str:
        return self._listing.told(self._at[index], f"mask of {self._ids[index]}")

    def digest(self) -> str:
        return digest_of_places(self._listing, self._at, [mask_name(name) for name in self._ids])


class MaskFiles:
    """Masks in a folder that mirrors the images' names."""

    in_files = True

    def __init__(self, folder: Path, ids: Sequence[str], pattern: str) -> None:
        self._folder, self._ids, self._pattern = folder, ids, pattern
        self._found = match_masks(str(folder), ids, (name for name, _ in walk(folder)), pattern)
        self.missing = self._found == MaskFile.MISSING

    def read(self, index: int) -> bytes:
        return read_file(self.told(index))

    def told(self, index: int) -> str:
        return f"{self._folder}/{mask_file(self._ids[index], self._found[index], self._pattern)}"

    def digest(self) -> str:
        return digest_of_files([mask_name(name) for name in self._ids], self.told)


def digest_of_places(listing: Listing, at: Places, names: Sequence[str]) -> str:
    """The digest of the bytes at some places, empty where they cannot be read; of many, of their sizes."""
    if len(names) > DIGESTED_WHOLE:
        return digest(names, (str(size).encode() for size in np.asarray(at)[:, 2].tolist()))
    return digest(names, (_content(listing, place) for place in at))


def _content(listing: Listing, place: Places) -> bytes:
    if place[0] < 0:
        return b""
    try:
        return listing.read(place)
    except UnreadableImage:
        return b""


def matched_places(listing: Listing, other: Listing) -> Places:
    """The place of each image's mask among the images of other files, by their names without suffixes."""
    if listing.key is None or other.key is None:
        return _matched(listing, other)["at"]
    key = hashlib.sha256(f"masks {listing.key} {other.key}".encode()).hexdigest()[:16]
    return shared_arrays(index_folder() / f"{key}.arrays", partial(_matched, listing, other))["at"]


def _matched(listing: Listing, other: Listing) -> Arrays:
    at = np.full((len(listing.names), 3), (-1, 0, 0), np.int64)
    for split in [name for name in listing.splits if name != "."] or ["."]:
        there = split if split in other.splits else "."
        numbers = {_stem(name): number for number, name in enumerate(other.ids(there))}
        places, (first, _) = other.part(other.image_at, there), listing.splits[split]
        for index, name in enumerate(listing.ids(split), first):
            if (number := numbers.get(_stem(name))) is not None:
                at[index] = places[number]
    return {"at": at}


def _stem(name: str) -> str:
    return name.rpartition(".")[0]
