"""Packs: images with their masks in a few large tar files with an index, written by `bgsweep pack`.

A pack is ``pack.json``, ``index.npz`` and ``shard-000000.tar``, … (docs/packs.md has the layout). Tar files with an
index of offsets can be read in any order, 12 us a record, and by WebDataset and tar. Masks as packed bits under zstd
take 22 us to decode; PNGs take 340 us, a third of the time of the JPEG.
"""

import hashlib
import io
import json
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import zstandard

from bgsweep.data.datasets.folder import all_foreground, nearest, relabelled
from bgsweep.data.datasets.listing import own_classes
from bgsweep.data.datasets.mask_cache import MaskCache
from bgsweep.data.datasets.pack_index import pack_index
from bgsweep.data.datasets.wrappers import derived_arrays
from bgsweep.data.missing_masks import MissingMasks
from bgsweep.data.sample import Mask, Sample
from bgsweep.errors import UnreadableImage, UserError
from bgsweep.images.compositing import Rect, largest_background_rectangle
from bgsweep.images.decoding import Size, decode_image, fit_mask
from bgsweep.storage.shards import Shards, open_shards
from bgsweep.storage.shared_arrays import Arrays

MANIFEST, INDEX, FORMAT = "pack.json", "index.npz", 3
READABLE = (1, 2, FORMAT)
"""Formats 1 and 2, the latter with labels in the index, have the first 8 bytes of a SHA-256 in place of each CRC-32."""
BLOCK = 512
"""Unit of tar: a member is a header of this size and its content, padded to a multiple of it."""

_HEADER = struct.Struct("<BII")  # bits or grey levels, height, width
_NO_RECT = (0, 0, 0, 0)
NO_MASK = (65_535,) * 4
"""The rectangle of an image that was packed without a mask."""
_REMEMBERED = 1 << 24
_PART = 1 << 22
_DAMAGE = (ValueError, KeyError, TypeError, zipfile.BadZipFile, FileNotFoundError)


class _Local(threading.local):
    """A decompressor for each thread: making one takes longer than unpacking a mask with it."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor()


_local = _Local()


class Record(NamedTuple):
    """The index entry of an image and its mask; a pack's index has an array of each attribute.

    Attributes:
        offset: of the image's first byte, in its shard; the mask is the next member.
        image: size in bytes.
        mask: size in bytes; 0 where there is no mask, or it could not be read.
        rect: the mask's largest background rectangle at its own size; zeros where there is none, `NO_MASK` where there
            is no mask.
        crc32: over image and mask.
    """

    offset: int
    image: int
    mask: int
    rect: tuple[int, int, int, int]
    crc32: int


TYPES = {"offset": "<u8", "image": "<u4", "mask": "<u4", "rect": "<u2", "crc32": "<u4"}


class Pack:
    """A split of a pack; its samples, ids and digests are those of the folders that the pack was made of.

    Each image and mask is compared with its checksum when a process first reads it.

    Args:
        uri: folder, or URI that pyarrow knows.
        split: folder of the packed tree; ``.`` for all of it.
        resize, classes, fast_jpeg, least_side: as of `Folder`.
        cache_gb: gigabytes of local disk for shards from a URI.

    Raises:
        UserError: no pack, an unfinished or damaged one, no such split, or wrong classes (see `Folder`).
    """

    has_masks = True

    def __init__(
        self,
        uri: str,
        split: str,
        resize: int | None = None,
        classes: Sequence[str] | None = None,
        fast_jpeg: bool = False,
        cache_gb: float = 0.0,
        least_side: int | None = None,
    ) -> None:
        self._uri, self._split, self.resize, self._fast, self._least_side = uri, split, resize, fast_jpeg, least_side
        self._shards = open_shards(uri, cache_gb)
        manifest = _manifest(self._shards)
        if split not in manifest["splits"]:
            folders = [name for name in manifest["splits"] if name != "."]
            raise UserError(f"data.pack: {uri} has no split {split!r}; {nearest(split, folders)}")
        self._digests: dict[str, str] = manifest["splits"][split]["digests"]
        self.name = manifest["name"] if split == "." else f"{manifest['name']}/{split}"
        first, count, where = manifest["splits"][split]["first"], manifest["splits"][split]["images"], f"{uri}/{split}"
        try:
            file = self._shards.local(INDEX, manifest["index"])
            index = pack_index(file, manifest["index"], split, first, count, where)
            labels, own = index.labels, index.classes
            if "labels" in index.arrays:
                labels, own = own_classes(index.arrays.pop("labels"), manifest["classes"], manifest["declared"])
        except _DAMAGE as error:
            raise _damaged(uri, error) from error
        self.ids: Sequence[str] = index.names
        self.classes: Sequence[str] = own if classes is None else classes
        self.labels = relabelled(where, labels, own, self.classes)
        self.identity = index.identity
        self._index = index.arrays
        # Kept, and sought part by part: of a billion images the question reads 4 GB, and its answers take one.
        kept, _ = derived_arrays(self, ("without a mask",), partial(_without_mask, self._index))
        missing, one = kept["found"].tolist()
        self.mask_kinds: dict[str, int] = manifest["splits"][split].get("mask_kinds", {})
        self.missing_masks = MissingMasks(missing, count, self.ids[one]) if missing else None
        self._first, self._starts = first, np.array(manifest["starts"], np.int64)
        # Of more images the memory of it would count: each is compared whenever it is read.
        self._verified = np.zeros(count if count <= _REMEMBERED else 0, np.bool_)
        self._mask_cache = MaskCache.for_images(count)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Raises UnreadableImage where the image is damaged."""
        name = self.ids[index]
        image_bytes, packed = self._read(index, name)
        if not image_bytes:
            raise UnreadableImage(f"{self._uri}: {name} could not be read when it was packed; pack again")
        image, size = decode_image(image_bytes, f"{self._uri}: {name}", self.resize, self._fast, self._least_side)
        if not packed and tuple(self._index["rect"][index]) == NO_MASK:
            return Sample(name, image, int(self.labels[index]), partial(all_foreground, image))
        decode = partial(self._mask, packed, name, size)
        rect: Callable[[], Rect | None] = partial(self._rect, index)
        if image.shape[:2] != size:
            # A resized mask has another rectangle than the index, and its search takes longer than a view: keep both.
            decode, rect = (
                partial(self._mask_cache.mask, index, decode),
                partial(self._mask_cache.rect, index, decode),
            )
        return Sample(name, image, int(self.labels[index]), decode, rect)

    def digests(self) -> dict[str, str]:
        return self._digests

    def location_of(self, index: int) -> str:
        """Location of an image: the same in all splits that hold it."""
        return f"{self._uri}/{self._split}/{self.ids[index]}".replace("/./", "/")

    def size_of(self, index: int) -> int:
        """Size of an image's file in bytes."""
        return int(self._index["image"][index])

    def encoded(self, index: int) -> bytes:
        """Content of an image's file."""
        return self._read(index, self.ids[index])[0]

    def _read(self, index: int, name: str) -> tuple[bytes, bytes]:
        offset, image, mask = (int(self._index[key][index]) for key in ("offset", "image", "mask"))
        # One read for both: the mask begins behind the padded image and its own header.
        until = -(-image // BLOCK) * BLOCK + BLOCK
        # The last shard whose first image is not behind this one.
        shard = int(np.searchsorted(self._starts, self._first + index, side="right")) - 1
        data = self._shards.read(shard, offset, until + mask)
        image_bytes, packed = data[:image], data[until:]
        # Once in a process: the SHA-256 of packs of earlier versions takes 8 % of the time of two views.
        if not len(self._verified) or not self._verified[index]:
            if not self._intact(index, image_bytes, packed):
                shards = f"{self._uri}/{shard_name(shard)}"
                raise UnreadableImage(f"{shards}: {name} is not what was packed; copy this shard again")
            self._verified[index : index + 1] = True
        return image_bytes, packed

    def _intact(self, index: int, image_bytes: bytes, packed: bytes) -> bool:
        if "digest" in self._index:
            return bool(_digest(image_bytes, packed) == self._index["digest"][index])
        return bool(checksum(image_bytes, packed) == self._index["crc32"][index])

    def _mask(self, packed: bytes, name: str, image_size: Size) -> Mask:
        if not packed:
            raise UnreadableImage(f"{self._uri}: the mask of {name} was damaged when it was packed")
        return fit_mask(
            unpack_mask(packed),
            f"{self._uri}: mask of {name}",
            image_size,
            name,
            self.resize,
            least_side=self._least_side,
        )

    def _rect(self, index: int) -> Rect | None:
        found = tuple(int(edge) for edge in self._index["rect"][index])
        return None if found == _NO_RECT else Rect(*found)


def splits_of(uri: str, cache_gb: float) -> set[str]:
    """The splits of a pack: its top-level folders, and ``.`` for all of it."""
    return set(_manifest(open_shards(uri, cache_gb))["splits"])


def shard_name(number: int) -> str:
    """The file name of a shard by its number."""
    return f"shard-{number:06d}.tar"


def checksum(image_bytes: bytes, packed_mask: bytes) -> int:
    """The checksum of a record, which a process compares when it first reads the record.

    A CRC-32 takes 10 us for 75 KB, where SHA-256 takes 170 (one core with AVX-512). Against intended changes neither
    protects, since the index can be changed as well.
    """
    return zlib.crc32(packed_mask, zlib.crc32(image_bytes))


def _digest(image_bytes: bytes, packed_mask: bytes) -> int:
    """The checksum of a record in packs of formats 1 and 2."""
    total = hashlib.sha256(image_bytes)
    total.update(packed_mask)
    return int.from_bytes(total.digest()[:8], "little")


def pack_mask(mask: Mask) -> bytes:
    """A mask as zstd over a header and its bits, or, if it has more than the levels 0 and 255, its bytes."""
    # 464 bytes for a mask of 500 x 375 px, where a PNG has 1,400.
    hard = bool(np.all((mask == 0) | (mask == 255)))
    content = np.packbits(mask > 0) if hard else mask
    return zstandard.ZstdCompressor(level=9).compress(_HEADER.pack(hard, *mask.shape) + content.tobytes())


def unpack_mask(packed: bytes) -> Mask:
    """The inverse of `pack_mask`."""
    data = _local.decompressor.decompress(packed)
    hard, height, width = _HEADER.unpack_from(data)
    content = np.frombuffer(data, np.uint8, offset=_HEADER.size)
    if hard:
        content = np.unpackbits(content, count=height * width)
        np.negative(content, out=content)  # 255 for 1, in place
    return cast(Mask, content.reshape(height, width))


def background_rectangle(mask: Mask) -> tuple[int, int, int, int]:
    """The largest rectangle without foreground, as an index entry has it."""
    return largest_background_rectangle(mask) or _NO_RECT


def index_bytes(names: Sequence[str], records: Sequence[Record], labels: npt.NDArray[np.int64] | None = None) -> bytes:
    """The index as an npz file; with labels, if names do not say them."""
    arrays = {key: np.array([getattr(r, key) for r in records], kind) for key, kind in TYPES.items()}
    if labels is not None:
        arrays["labels"] = np.asarray(labels, "<i8")
    text = "\0".join(names).encode("utf-8", "surrogateescape")
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, names=np.frombuffer(text, np.uint8), **arrays)
    return file.getvalue()


def _manifest(shards: Shards) -> dict[str, Any]:
    """The manifest, checked against the shards' sizes."""
    try:
        content = shards.file(MANIFEST)
    except FileNotFoundError as error:
        raise UserError(
            f"data.pack: no finished pack at {shards.uri} ({MANIFEST} is missing); make it: `bgsweep pack`"
        ) from error
    try:
        manifest: dict[str, Any] = json.loads(content)
        if manifest["format"] not in READABLE:
            made = f"a pack of format {manifest['format']}, this bgsweep reads formats up to {FORMAT}"
            raise UserError(f"{shards.uri}: {made}; pack again")
        shards.expect([(shard_name(n), *of) for n, of in enumerate(manifest["shards"])], manifest["index"][:16])
    except _DAMAGE as error:
        raise _damaged(shards.uri, error) from error
    return manifest


def _damaged(uri: str, error: Exception) -> UserError:
    return UserError(f"{uri}: damaged pack ({error}); copy it again, or pack again")


def _without_mask(index: dict[str, npt.NDArray[Any]]) -> Arrays:
    """The number of images that were packed without a mask, and the first of them."""
    count, first = 0, 0
    for begin in range(0, len(index["mask"]), _PART):
        empty = begin + np.flatnonzero(index["mask"][begin : begin + _PART] == 0)
        found = empty[(np.asarray(index["rect"][empty]) == NO_MASK[0]).all(axis=1)]
        if len(found) and not count:
            first = int(found[0])
        count += len(found)
    return {"found": np.array([count, first], np.int64)}
