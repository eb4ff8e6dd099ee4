"""`Listed`: a split of images that files list or hold, with masks from the same files, others, or a folder."""

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bgsweep.config.mask_format import MaskFormat
from bgsweep.data.datasets.folder import all_foreground, digest_as_read, nearest, relabelled
from bgsweep.data.datasets.folder_index import PLAIN, check_count
from bgsweep.data.datasets.listed_masks import Masks, digest_of_places, open_masks
from bgsweep.data.datasets.listing import Listing, digest_with_labels, own_classes
from bgsweep.data.datasets.mask_cache import MaskCache
from bgsweep.data.mask_check import Pair, check_masks, form_of
from bgsweep.data.missing_masks import MissingMasks, missing_among
from bgsweep.data.sample import Mask, Sample
from bgsweep.errors import UserError
from bgsweep.images.decoding import Size, decode_image, decode_mask


class Listed:
    """A split of a `Listing`.

    Images are sorted by name. An image without a mask has one that is all foreground, as in a `Folder`.

    Args:
        listing: all images of the files.
        split: of them; ``.`` for all.
        masks: ``included`` in the same files, the same URI (the images' own alpha channel), a folder that mirrors the
            images' names, or other files, in which masks have the names of the images.
        resize, classes, fast_jpeg, mask_format, least_side: as of `Folder`.

    Raises:
        UserError: there is no such split, masks are missing or wrong, or a label is not in `classes`.
    """

    def __init__(
        self,
        listing: Listing,
        split: str,
        masks: str | None = None,
        resize: int | None = None,
        classes: Sequence[str] | None = None,
        fast_jpeg: bool = False,
        mask_format: MaskFormat = PLAIN,
        least_side: int | None = None,
    ) -> None:
        if split not in listing.splits:
            known = [name for name in listing.splits if name != "."]
            told = nearest(split, known) if known else "it has no splits: name all of it by '.'"
            raise UserError(f"data.images: {listing.uri} has no split {split!r}; {told}")
        base = Path(listing.uri).name
        self.name = base if split == "." else f"{base}/{split}"
        self.resize, self._fast, self._least_side, self.listing = resize, fast_jpeg, least_side, listing
        self.ids: Sequence[str] = listing.ids(split)
        check_count(self.name, self.ids)
        self._image_at = listing.part(listing.image_at, split)
        self.identity = None if listing.key is None else f"{listing.key}/{split}"
        labels, own = own_classes(listing.part(listing.labels, split), listing.classes, listing.declared)
        self._labels_digest = partial(digest_with_labels, labels=labels, classes=own)
        self.classes: Sequence[str] = own if classes is None else classes
        self._check_labels(labels, own)
        self.labels = relabelled(self.name, labels, own, self.classes)
        self.has_masks = masks is not None
        self._masks: Masks | None = None
        self._mask_form = form_of(mask_format)
        self._mask_cache = MaskCache.for_images(len(self))
        self.missing_masks: MissingMasks | None = None
        self.mask_kinds: dict[str, int] = {}
        if masks is not None:
            self._masks = open_masks(listing, split, masks, mask_format.pattern)
            self.missing_masks = missing_among(self.ids, self._masks.missing)
            self.mask_kinds = check_masks(len(self), self._pair, self._masks.in_files, self._mask_form)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Raises UnreadableImage where the image cannot be decoded."""
        name = self.ids[index]
        image, size = decode_image(self.encoded(index), self._told(index), self.resize, self._fast, self._least_side)
        label = int(self.labels[index])
        if self._masks is None:
            return Sample(name, image, label)
        if self._masks.missing[index]:
            return Sample(name, image, label, partial(all_foreground, image))
        decode, cache = partial(self._load_mask, index, size), self._mask_cache
        return Sample(name, image, label, partial(cache.mask, index, decode), partial(cache.rect, index, decode))

    def digests(self) -> dict[str, str]:
        """As `ImageDataset` says, the labels included; of more than 20,000 images sizes stand for contents."""
        return self._digests

    @cached_property
    def _digests(self) -> dict[str, str]:
        images = digest_of_places(self.listing, self._image_at, self.ids)
        found = {"images": self._labels_digest(images)}
        if self._masks is not None:
            found["masks"] = digest_as_read(self._masks.digest(), self._mask_form)
        return found

    def location_of(self, index: int) -> str:
        """Location of an image: the same in all splits that hold it."""
        return self.listing.location(self._image_at[index])

    def size_of(self, index: int) -> int:
        """Size of an image in bytes."""
        return int(self._image_at[index, 2])

    def encoded(self, index: int) -> bytes:
        """The encoded image; raises UnreadableImage."""
        return self.listing.read(self._image_at[index])

    def _told(self, index: int) -> str:
        return self.listing.told(self._image_at[index], self.ids[index])

    def _load_mask(self, index: int, image_size: Size) -> Mask:
        assert self._masks is not None
        told, read_image = self._told(index), partial(self.encoded, index)
        name = self._masks.told(index)
        how = self.resize, read_image, self._mask_form, self._least_side
        return decode_mask(self._masks.read(index), name, image_size, told, *how)

    def _pair(self, index: int) -> Pair:
        assert self._masks is not None
        read = partial(self.encoded, index), partial(self._masks.read, index)
        return Pair(self._told(index), self._masks.told(index), *read)

    def _check_labels(self, labels: npt.NDArray[np.int64], own: Sequence[str]) -> None:
        for unknown in sorted(set(own) - set(self.classes)):
            found = np.flatnonzero(np.asarray(labels) == list(own).index(unknown))
            raise UserError(
                f"{self.name}: {self.ids[int(found[0])]} has the label {unknown!r}, which no training image has "
                f"({len(found)} such images); correct or remove them; {nearest(unknown, self.classes)}"
            )
