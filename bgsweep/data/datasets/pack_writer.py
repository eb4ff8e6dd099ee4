"""`bgsweep pack`: writes a tree of images and one of masks as a pack (`data.pack`), whole or not at all."""

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bgsweep.config.columns import INCLUDED, Columns
from bgsweep.config.mask_format import MaskFormat, mask_source
from bgsweep.data.datasets.folder import DIGESTED_WHOLE, digest_as_read, image_names
from bgsweep.data.datasets.formats import DEFAULT, open_listing
from bgsweep.data.datasets.listed_masks import matched_places
from bgsweep.data.datasets.listing import Listing, digest_with_labels, own_classes
from bgsweep.data.datasets.listing_tree import BY_NAME, ListingTree
from bgsweep.data.datasets.pack import (
    FORMAT,
    INDEX,
    MANIFEST,
    NO_MASK,
    Record,
    background_rectangle,
    checksum,
    index_bytes,
    pack_mask,
    shard_name,
)
from bgsweep.data.datasets.pack_size import PackSize
from bgsweep.data.mask_check import Pair, check_masks, form_of
from bgsweep.data.mask_kinds import kind_of
from bgsweep.data.missing_masks import MaskFile, mask_file, mask_name, match_masks, missing_among
from bgsweep.data.sample import Mask
from bgsweep.errors import UnreadableImage, UserError, warn_once
from bgsweep.images.decoding import read_gray, scaled_mask, upright_mask, upright_size
from bgsweep.images.mask_form import MaskForm
from bgsweep.storage.atomic import replacing_folder
from bgsweep.storage.hashing import Digest, digest
from bgsweep.storage.tree import LocalTree, Tree, open_tree
from bgsweep.storage.uri import refuse_inside

_Content = tuple[str, bytes, bytes | None]


class _Entry(NamedTuple):
    """An image as it is packed, with its mask's file and its mask, which may be None: there is none, or unreadable."""

    name: str
    image: bytes
    file: bytes | None
    mask: Mask | None
    ending: str
    shrunk: bool = False


_PLAIN = MaskFormat()
_UNCHANGED = PackSize()

SHARD_BYTES = 256 << 20
# The index has 16 bits for each edge of a rectangle.
_LONGEST_SIDE = 65_535


class _Sources(NamedTuple):
    """Trees of images and masks, the masks' format, and the files that list or hold the images, if any do."""

    images: Tree
    masks: Tree
    mask_format: MaskFormat
    listing: Listing | None


def make_pack(
    images: str,
    masks: str,
    out: str,
    shard_bytes: int = SHARD_BYTES,
    mask_format: MaskFormat = _PLAIN,
    columns: Columns = DEFAULT,
    size: PackSize = _UNCHANGED,
) -> dict[str, Any]:
    """Write the images below a folder, all splits of it, with their masks into a pack.

    Args:
        images: folder or URI, or files that list or hold images.
        masks: folder or URI that mirrors it, a file for each image; ``alpha``: the images' own alpha channel;
            ``included``: those in the images' files.
        out: folder or URI to write, which must not exist. A folder is renamed to it when complete; at a URI
            ``pack.json`` is written last.
        shard_bytes: size at which a shard is closed; it is held in memory until then.
        mask_format: names and contents of the masks.
        columns: names in the images' files.
        size: that larger images are shrunk to, as JPEGs, with their masks; without it files are packed unchanged.

    Returns:
        `out`, the numbers of `images`, `shards`, `bytes` and images that were `shrunk`, the `unreadable`: images that,
        or whose masks, cannot be read, and `missing_masks`: how many have none, in words (None: all have one).

    Raises:
        UserError: no images, an image without mask, `out` exists, lies inside `images` or cannot be written.
    """
    refuse_inside(images, out)
    limit = size.checked()
    sources = _sources(images, masks, mask_format, columns)
    names, mask_names = _names(sources)
    target = open_tree(out)
    if not isinstance(target, LocalTree):
        if MANIFEST in target.files():
            raise UserError(f"--out {out}: holds a pack; name another URI, or remove it")
        return {"out": out, **_write(sources, names, mask_names, target, shard_bytes, limit)}
    if target.root.exists():
        raise UserError(f"--out {out}: exists; name another folder, or remove it")
    with replacing_folder(target.root.absolute()) as partial:
        result = _write(sources, names, mask_names, LocalTree(partial), shard_bytes, limit)
    return {"out": out, **result}


def _write(
    sources: _Sources,
    names: Sequence[str],
    mask_names: Sequence[str | None],
    target: Tree,
    shard_bytes: int,
    size: PackSize | None,
) -> dict[str, Any]:
    form = form_of(sources.mask_format)
    listing = sources.listing
    splits = _Splits(names, form) if listing is None else _ListedSplits(names, form, listing)
    records: list[Record] = []
    starts: list[int] = []
    shards: list[tuple[int, str]] = []
    unreadable: list[str] = []
    shard: _Shard | None = None
    shrunk = 0
    for number, entry in enumerate(_entries(_contents(sources, names, mask_names), form, size)):
        if shard is None:
            shard = _Shard()
            starts.append(number)
        splits.add(entry.name, entry.image, entry.file, entry.mask)
        label = _class_of(entry.name) if listing is None else listing.class_of(number)
        records.append(shard.add(number, entry, label))
        shrunk += entry.shrunk
        if entry.mask is None and entry.file is not None:
            unreadable.append(entry.name)
        if shard.size >= shard_bytes or number == len(names) - 1:
            data = shard.close()
            target.write(shard_name(len(shards)), data)
            shards.append((len(data), hashlib.sha256(data).hexdigest()))
            shard = None
    index = index_bytes(names, records, None if listing is None else listing.labels)
    target.write(INDEX, index)
    manifest = {
        "format": FORMAT,
        "name": sources.images.uri.rstrip("/").rpartition("/")[2],
        "index": hashlib.sha256(index).hexdigest(),
        "shards": shards,
        "starts": starts,
        "splits": splits.entries(size if shrunk else None),
    }
    if size is not None:
        manifest["size"] = {**size._asdict(), "shrunk": shrunk}
    if listing is not None:
        manifest |= {"classes": listing.classes, "declared": listing.declared}
    # Last, so that an unfinished pack has no manifest.
    target.write(MANIFEST, json.dumps(manifest, indent=1).encode() + b"\n")
    missing = missing_among(names, np.array([mask is None for mask in mask_names]))
    return {
        "images": len(names),
        "shards": len(shards),
        "bytes": sum(bytes_ for bytes_, _ in shards),
        "shrunk": shrunk,
        "unreadable": unreadable,
        "missing_masks": str(missing) if missing else None,
    }


class _Shard:
    """A tar file under construction. Members are named as WebDataset needs them: those of one image share a stem."""

    def __init__(self) -> None:
        # In memory, because an object store cannot append to an object.
        self._file = io.BytesIO()
        # USTAR headers are one block each, so that offsets can be computed; other formats put further members before a
        # file.
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    @property
    def size(self) -> int:
        return self._file.tell()

    def add(self, number: int, entry: _Entry, label: str) -> Record:
        name, image, file, mask, ending, _ = entry
        stem = f"{number:09d}"
        about = {"id": name} | ({"class": label} if label else {})
        self._member(f"{stem}.json", json.dumps(about).encode())
        offset = self._member(f"{stem}.{ending}", image)
        packed, rect = (b"", (0, 0, 0, 0)) if mask is None else (pack_mask(mask), background_rectangle(mask))
        if file is None:
            rect = NO_MASK
        self._member(f"{stem}.mask.zst", packed)
        return Record(offset, len(image), len(packed), rect, checksum(image, packed))

    def close(self) -> bytes:
        self._tar.close()
        return self._file.getvalue()

    def _member(self, name: str, content: bytes) -> int:
        """Append a file; gives the offset of its content."""
        member = tarfile.TarInfo(name)
        member.size = len(content)
        # The content begins after the header's block.
        at = self._file.tell() + tarfile.BLOCKSIZE
        self._tar.addfile(member, io.BytesIO(content))
        return at


class _Splits:
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

    def add(self, name: str, image: bytes, file: bytes | None, mask: Mask | None) -> None:
        for split in {".", self._split_of(name)} & self._counts.keys():
            below = name if split == "." else name.removeprefix(f"{split}/")
            for kind, entry, content in (("images", below, image), ("masks", mask_name(below), file or b"")):
                # As `Folder` does: a pack must have the digests of the folders that it was made of.
                sized = self._counts[split] > DIGESTED_WHOLE
                self._digests[split][kind].add(entry, str(len(content)).encode() if sized else content)
            if mask is not None:
                self._kinds[split][kind_of(mask)] += 1

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


class _ListedSplits(_Splits):
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


def _sources(images: str, masks: str, mask_format: MaskFormat, columns: Columns) -> _Sources:
    listing = open_listing(images, columns)
    root, mask_format = mask_source(images, masks, mask_format)
    if listing is None:
        if masks == INCLUDED:
            raise UserError(f"{images}: a folder of images, which includes no masks; name the folder of its masks")
        return _Sources(open_tree(images), open_tree(root or masks), mask_format, None)
    tree: Tree = ListingTree(listing)
    by_name = mask_format.model_copy(update=BY_NAME)
    if masks == INCLUDED:
        included = ListingTree(listing, listing.mask_at, uri=f"masks included in {images}")
        return _Sources(tree, included, by_name, listing)
    if root != images and (other := open_listing(masks)) is not None:
        matched = ListingTree(listing, matched_places(listing, other), other, masks)
        return _Sources(tree, matched, by_name, listing)
    return _Sources(tree, tree if root == images else open_tree(masks), mask_format, listing)


def _mask(name: str, image: bytes, file: bytes | None, form: MaskForm) -> Mask | None:
    """The mask of the upright image; None where either cannot be read."""
    if not file or not image:
        return None
    try:
        mask = upright_mask(read_gray(file, f"mask of {name}", form), image)
        mask = scaled_mask(mask, f"mask of {name}", upright_size(image), name)
    except UnreadableImage as error:
        warn_once(f"{error}; the image is packed without its mask and passed over in training")
        return None
    if max(mask.shape) > _LONGEST_SIDE:
        raise UserError(f"{name}: its mask is longer than {_LONGEST_SIDE} pixels; remove or shrink both")
    return mask


def _names(sources: _Sources) -> tuple[list[str], list[str | None]]:
    """Names of the images and their masks (None: it has none), after `check_masks`."""
    images, masks, mask_format, _ = sources
    names = image_names(images, images.files())
    found = match_masks(masks.uri, names, masks.files(), mask_format.pattern)
    files = [mask_file(name, kind, mask_format.pattern) for name, kind in zip(names, found, strict=True)]

    def pair(index: int) -> Pair:
        read = partial(images.read, names[index]), partial(masks.read, files[index])
        return Pair(f"{images.uri}/{names[index]}", f"{masks.uri}/{files[index]}", *read)

    check_masks(len(names), pair, isinstance(masks, LocalTree), form_of(mask_format))
    return names, [None if kind == MaskFile.MISSING else file for file, kind in zip(files, found, strict=True)]


def _contents(sources: _Sources, names: Sequence[str], mask_names: Sequence[str | None]) -> Iterator[_Content]:
    images, masks, *_ = sources
    for name, mask in zip(names, mask_names, strict=True):
        yield name, _content(images, name), None if mask is None else _content(masks, mask)


def _entries(contents: Iterator[_Content], form: MaskForm, size: PackSize | None) -> Iterator[_Entry]:
    for name, image, file in contents:
        mask = _mask(name, image, file, form)
        entry = _Entry(name, image, file, mask, name.rpartition(".")[2].lower())
        if size is not None and image:
            try:
                if shrunk := size.shrink(image, mask, name):
                    entry = _Entry(name, shrunk[0], file, shrunk[1], "jpg", True)
            except UnreadableImage as error:
                warn_once(f"{error}; it is packed as it is and passed over in training")
        yield entry


def _digest_as_shrunk(masks: str, size: PackSize | None) -> str:
    """The digest of masks from that of their files, which were shrunk; images are digested as they are packed."""
    return masks if size is None else digest([masks], [repr(tuple(size)).encode()])


def _content(tree: Tree, name: str) -> bytes:
    """Content of a file; empty where it cannot be read."""
    try:
        return tree.read(name)
    except UnreadableImage as error:
        warn_once(f"{error}; it is packed as an empty file and passed over in training")
        return b""


def _class_of(name: str) -> str:
    """The folder that an image lies in: its class, unless there are folders below the class folders."""
    return name.rpartition("/")[0].rpartition("/")[2]
