"""The splits in a pack's manifest: their images, the digests of their content, the kinds of their masks."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from bgsweep.data.datasets.folder import DIGESTED_WHOLE, digest_as_read
from bgsweep.data.datasets.listing import Listing, digest_with_labels, own_classes
from bgsweep.data.datasets.pack_input import Entry
from bgsweep.data.datasets.pack_size import PackSize
from bgsweep.data.mask_kinds import kind_of
from bgsweep.data.missing_masks import mask_name
from bgsweep.images.mask_form import MaskForm
from bgsweep.storage.hashing import Digest, digest


class PackSplits:
    """Each split, a folder at the top, and the whole tree: digests as `Folder` gives them, and kinds of masks."""

    def __init__(self, names: Sequence[str], form: MaskForm) -> None:
        self._form = form
        self._counts: dict[str, int] = {".": len(names)}
        self._first: dict[str, int] = {".": 0}
        for number, name in enumerate(names):
            if split := self._split_of(name):
                self._counts[split] = self._counts.get(split, 0) + 1
                self._first.setdefault(split, number)
        self._digests = {split: {"images": Digest(), "masks": Digest()} for split in self._counts}
        self._kinds: dict[str, Counter[str]] = {split: Counter() for split in self._counts}

    def add(self, entry: Entry) -> None:
        name = entry.name
        for split in {".", self._split_of(name)} & self._counts.keys():
            below = name if split == "." else name.removeprefix(f"{split}/")
            for kind, file, content in (
                ("images", below, entry.image),
                ("masks", mask_name(below), entry.file or b""),
            ):
                # As `Folder` does: a pack must have the digests of the folders that it was made of.
                sized = self._counts[split] > DIGESTED_WHOLE
                self._digests[split][kind].add(file, str(len(content)).encode() if sized else content)
            if entry.mask is not None:
                self._kinds[split][kind_of(entry.mask)] += 1

    def _split_of(self, name: str) -> str:
        """The split that an image is in; empty where it is in none."""
        return name.partition("/")[0] if "/" in name else ""

    def entries(self, size: PackSize | None) -> dict[str, Any]:
        """The splits as the manifest has them, for images that were shrunk to a size, if they were."""
        return {
            split: {
                "first": self._first[split],
                "images": count,
                "digests": {
                    "images": self._digests[split]["images"].value(),
                    "masks": _digest_as_shrunk(digest_as_read(self._digests[split]["masks"].value(), self._form), size),
                },
                "mask_kinds": dict(self._kinds[split]),
            }
            for split, count in self._counts.items()
        }


class ListedSplits(PackSplits):
    """The splits that a listing has, with labels that names do not say."""

    def __init__(self, names: Sequence[str], form: MaskForm, listing: Listing) -> None:
        self._listing = listing
        super().__init__(names, form)

    def entries(self, size: PackSize | None) -> dict[str, Any]:
        found = super().entries(size)
        for split, entry in found.items():
            labels = self._listing.part(self._listing.labels, split)
            own = own_classes(labels, self._listing.classes, self._listing.declared)
            entry["digests"]["images"] = digest_with_labels(entry["digests"]["images"], *own)
        return found

    def _split_of(self, name: str) -> str:
        split = super()._split_of(name)
        return split if split in self._listing.splits else ""


def _digest_as_shrunk(masks: str, size: PackSize | None) -> str:
    """The digest of masks from that of their files, which were shrunk; images are digested as they are packed."""
    return masks if size is None else digest([masks], [repr(tuple(size)).encode()])
