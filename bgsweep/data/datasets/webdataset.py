"""WebDataset's tar files: members with one stem are an image, its label and its mask.

Members of a tar lie in one piece, so that with an index of their offsets images are read in any order.
"""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bgsweep.config.columns import Columns
from bgsweep.data.datasets.entries import NONE, Entries, Entry, Place, is_image, named
from bgsweep.data.datasets.file_sets import FileSet
from bgsweep.errors import UserError, one_line
from bgsweep.images.files import is_junk
from bgsweep.storage.shards import read_part

MASK, CLS, FIELD = "mask.png", "cls", "label"
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}


class _Group(NamedTuple):
    """The members of one key, by their endings."""

    file: Path
    key: str
    members: dict[str, Place]

    @property
    def where(self) -> str:
        return f"{self.file}: {self.key}"


def webdataset_entries(files: FileSet, columns: Columns) -> Entries:
    """The images of the tars.

    Raises:
        UserError: a tar is compressed, damaged or has no images; an image has no label, or several members could be it.
    """
    found: list[Entry] = []
    shards: list[str] = []
    for split, path in files.files:
        found += (_entry(split, group, columns) for group in _groups(path, columns))
        shards += [path.stem] * (len(found) - len(shards))
    if len({(each.split, each.name) for each in found}) < len(found):  # each shard counts its keys from 0
        found = [each._replace(name=f"{shard}/{each.name}") for shard, each in zip(shards, found, strict=True)]
    return Entries(found)


def _entry(split: str, group: _Group, columns: Columns) -> Entry:
    ending = _image(group, columns)
    mask = group.members.get(columns.mask or MASK)
    label = _label(group, columns)
    return Entry(split, f"{named(group.key)}.{ending}", label, group.members[ending], mask, group.where)


def _groups(path: Path, columns: Columns) -> list[_Group]:
    """The keys that have an image, in the order of the file."""
    found: dict[str, _Group] = {}
    for member, place in _members(path):
        folder, slash, name = member.rpartition("/")
        stem, _, ending = name.partition(".")
        group = found.setdefault(folder + slash + stem, _Group(path, folder + slash + stem, {}))
        if ending.lower() in group.members:
            raise UserError(f"{path}: {member} is in it twice; write the tar again")
        group.members[ending.lower()] = place
    groups = [group for group in found.values() if _images(group, columns)]
    if not groups:
        wanted = columns.image or "jpg, jpeg, png or webp"
        seen = sorted({ending for group in found.values() for ending in group.members})[:8]
        raise UserError(
            f"{path}: no images in it (of members ending in {wanted}; there are {', '.join(seen) or 'none'}); correct "
            "the path, or name the ending by data.columns.image"
        )
    return groups


def _images(group: _Group, columns: Columns) -> list[str]:
    """The endings of members that could be the image."""
    if columns.image is not None:
        return [columns.image] if columns.image in group.members else []
    aside = {columns.mask or MASK}
    return [ending for ending in group.members if is_image(f".{ending}") and "." not in ending and ending not in aside]


def _image(group: _Group, columns: Columns) -> str:
    found = _images(group, columns)
    if len(found) > 1:
        raise UserError(
            f"{group.where}: {' and '.join(found)} could be the image; name its ending by data.columns.image (and that "
            "of a mask by data.columns.mask)"
        )
    return found[0]


def _label(group: _Group, columns: Columns) -> str | None:
    if columns.label == NONE:
        return None
    if columns.label is None and CLS in group.members:
        return _content(group.members[CLS]).decode("utf-8", "replace").strip() or None
    if "json" not in group.members:
        if columns.label is not None:
            raise UserError(f"{group.where}: no member .json that would have the label {columns.label!r}; add it")
        return None
    try:
        about: Any = json.loads(_content(group.members["json"]))
        value = about.get(columns.label or FIELD)
    except (ValueError, AttributeError) as error:
        raise UserError(f"{group.where}.json: not a JSON object ({one_line(error)}); write the tar again") from error
    if value is None and columns.label is not None:
        known = ", ".join(list(about)[:12])
        raise UserError(f"{group.where}.json: no {columns.label!r} (there are {known}); correct data.columns.label")
    if value is not None and (not isinstance(value, str | int) or isinstance(value, bool)):
        raise UserError(
            f"{group.where}.json: the label is {json.dumps(value)}, neither a text nor a whole number; correct it"
        )
    return None if value is None else str(value)


def _content(place: Place) -> bytes:
    return read_part(place.file, place.offset, place.size)


def _members(path: Path) -> Iterator[tuple[str, Place]]:
    """The files in a tar, without what systems add."""
    where = str(path.absolute())
    try:
        begin = read_part(where, 0, 6)
        for signature, tool in _COMPRESSED.items():
            if begin.startswith(signature):
                raise UserError(
                    f"{path}: compressed, so that images in it cannot be read in any order; unpack it to .tar ({tool})"
                )
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.isreg() and not any(map(is_junk, member.name.split("/"))):
                    yield member.name.removeprefix("./"), Place(where, member.offset_data, member.size)
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{path}: not a tar file, or damaged ({one_line(error)}); copy it again") from error
