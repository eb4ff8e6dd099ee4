"""`bgsweep pack`: writes a tree of images and one of masks as a pack (`data.pack`), whole or not at all."""

import hashlib
import json
from typing import Any

import numpy as np

from bgsweep.config.columns import Columns
from bgsweep.config.mask_format import MaskFormat
from bgsweep.data.datasets.formats import DEFAULT
from bgsweep.data.datasets.pack import FORMAT, INDEX, MANIFEST, index_bytes
from bgsweep.data.datasets.pack_input import PackInput
from bgsweep.data.datasets.pack_shards import ShardWriter
from bgsweep.data.datasets.pack_size import PackSize
from bgsweep.data.datasets.pack_splits import ListedSplits, PackSplits
from bgsweep.data.missing_masks import missing_among
from bgsweep.errors import UserError
from bgsweep.storage.atomic import replacing_folder
from bgsweep.storage.tree import LocalTree, Tree, open_tree
from bgsweep.storage.uri import refuse_inside

_PLAIN = MaskFormat()
_UNCHANGED = PackSize()

SHARD_BYTES = 256 << 20


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
    source = PackInput(images, masks, mask_format, columns)
    target = open_tree(out)
    if not isinstance(target, LocalTree):
        if MANIFEST in target.files():
            raise UserError(f"--out {out}: holds a pack; name another URI, or remove it")
        return {"out": out, **_write(source, target, shard_bytes, limit)}
    if target.root.exists():
        raise UserError(f"--out {out}: exists; name another folder, or remove it")
    with replacing_folder(target.root.absolute()) as partial:
        result = _write(source, LocalTree(partial), shard_bytes, limit)
    return {"out": out, **result}


def _write(source: PackInput, target: Tree, shard_bytes: int, size: PackSize | None) -> dict[str, Any]:
    names, form, listing = source.names, source.form, source.listing
    splits = PackSplits(names, form) if listing is None else ListedSplits(names, form, listing)
    shards = ShardWriter(target, shard_bytes)
    unreadable: list[str] = []
    shrunk = 0
    for entry in source.entries(size):
        splits.add(entry)
        shards.add(entry)
        shrunk += entry.shrunk
        if entry.mask is None and entry.file is not None:
            unreadable.append(entry.name)
    shards.close()
    index = index_bytes(names, shards.records, None if listing is None else listing.labels)
    target.write(INDEX, index)
    manifest = _manifest(source, index, shards, splits.entries(size if shrunk else None))
    if size is not None:
        manifest["size"] = {**size._asdict(), "shrunk": shrunk}
    # Last, so that an unfinished pack has no manifest.
    target.write(MANIFEST, json.dumps(manifest, indent=1).encode() + b"\n")
    missing = missing_among(names, np.array([mask is None for mask in source.mask_names]))
    return {
        "images": len(names),
        "shards": len(shards.shards),
        "bytes": sum(bytes_ for bytes_, _ in shards.shards),
        "shrunk": shrunk,
        "unreadable": unreadable,
        "missing_masks": str(missing) if missing else None,
    }


def _manifest(source: PackInput, index: bytes, shards: ShardWriter, splits: dict[str, Any]) -> dict[str, Any]:
    """The content of `pack.json` for readers: the other files, their checksums, and the splits."""
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "name": source.uri.rstrip("/").rpartition("/")[2],
        "index": hashlib.sha256(index).hexdigest(),
        "shards": shards.shards,
        "starts": shards.starts,
        "splits": splits,
    }
    if source.listing is not None:
        manifest |= {"classes": source.listing.classes, "declared": source.listing.declared}
    return manifest
