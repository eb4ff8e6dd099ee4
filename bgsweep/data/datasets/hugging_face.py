"""Hugging Face's datasets: arrow files of `save_to_disk`, and parquet files with a column of images.

Images in arrow files are read where they lie, as from a tar. Parquet compresses whole row groups, so that one image in
random order would cost the decoding of hundreds: its images are copied into one file of the cache, once on a machine.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from bgsweep.config.columns import Columns
from bgsweep.data.datasets.copied import CopiedImages
from bgsweep.data.datasets.entries import WHOLE, Entries, Entry, Place, column, is_image, suffix_of
from bgsweep.data.datasets.file_sets import FileSet
from bgsweep.errors import UserError, one_line

_ROWS = 256


class _Names(NamedTuple):
    """The columns of a file."""

    image: str
    label: str | None
    mask: str | None


class _Row(NamedTuple):
    """An image, the path that it was read from when the dataset was made, and the rest of its row."""

    where: str
    image: Place
    suffix: str
    path: str | None
    label: Any
    mask: Place | None


def hugging_face_entries(files: FileSet, columns: Columns, copied: CopiedImages) -> Entries:
    """The images of arrow or parquet files.

    Args:
        copied: keeps the images of parquet files.

    Raises:
        UserError: a file is damaged, or has no column of images.
    """
    found: list[Entry] = []
    classes: list[str] | None = None
    splits: dict[str, list[Path]] = {}
    for split, path in files.files:
        splits.setdefault(split, []).append(path)
    for split, paths in splits.items():
        rows: list[_Row] = []
        for path in paths:
            schema = _schema(path)
            names = _names(path, schema, columns)
            own = _class_names(schema, names.label)
            if (rows and own != classes) or (found and own != classes):
                raise UserError(
                    f"{path}: its labels have other names than those of {files.files[0][1]}; use one of both"
                )
            classes = own
            rows += _read(path, names, copied)
        found += _entries(split, rows, classes)
    return Entries(found, classes)


def _entries(split: str, rows: Sequence[_Row], classes: Sequence[str] | None) -> Iterator[Entry]:
    paths = [PurePath(row.path or "").name for row in rows]
    # File names, if each image has its own; they stay the same where rows are added, and masks are named by them.
    by_path = all(map(is_image, paths)) and max(Counter(paths).values(), default=1) == 1
    for number, (row, path) in enumerate(zip(rows, paths, strict=True)):
        name = path if by_path else f"{number:09d}{row.suffix}"
        yield Entry(split, name, _label(row, classes), row.image, row.mask, row.where)


def _label(row: _Row, classes: Sequence[str] | None) -> str | None:
    if row.label is None or (classes is not None and row.label == -1):
        return None
    if classes is None:
        return str(row.label)
    if not 0 <= row.label < len(classes):
        raise UserError(f"{row.where}: label {row.label}, but there are {len(classes)} classes; save the dataset again")
    return classes[int(row.label)]


def _schema(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(path) if path.suffix == ".parquet" else _arrow(path)[0].schema
    except (OSError, pa.ArrowException) as error:
        kind = "a parquet file" if path.suffix == ".parquet" else "an arrow file"
        raise UserError(f"{path}: not {kind}, or damaged ({one_line(error)}); copy it again") from error


def _arrow(path: Path) -> tuple[Any, Any]:
    """A reader of an arrow file, in either of its two forms, and the mapped file."""
    import pyarrow as pa

    content = pa.memory_map(str(path)).read_buffer()
    is_file = content[:6].to_pybytes() == b"ARROW1"
    return pa.ipc.open_file(content) if is_file else pa.ipc.open_stream(content), content


def _names(path: Path, schema: Any, columns: Columns) -> _Names:
    """The columns to read; that of the images is the only one of the type, or named `image`."""
    images = [field.name for field in schema if _holds_images(field.type)]
    usual = ("image", "img", *(images if len(images) == 1 else ()))
    where = f"{path}, columns of images (bytes, as `datasets` saves them)"
    return _Names(
        column(columns.image, usual, images, "image", where, needed=True) or "",
        column(columns.label, ("label", "labels"), schema.names, "label", str(path)),
        column(columns.mask, ("mask",), images, "mask", where),
    )


def _holds_images(kind: Any) -> bool:
    """True for bytes, and for `datasets`' images: bytes with the path that they were read from."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        kind = next((field.type for field in kind if field.name == "bytes"), pa.null())
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _class_names(schema: Any, label: str | None) -> list[str] | None:
    """The names of the classes, which `datasets` writes into the metadata; None where labels are names or numbers."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]
        names: list[str] = about["names"] if about["_type"] == "ClassLabel" else []
    except (KeyError, TypeError, ValueError):
        return None
    counts = Counter(names)  # ImageNet has two classes called crane
    return [name if counts[name] == 1 else f"{name} ({number})" for number, name in enumerate(names)] or None


def _read(path: Path, names: _Names, copied: CopiedImages) -> Iterator[_Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted, content = [name for name in names if name is not None], None
    number = 0
    try:
        if path.suffix == ".parquet":
            batches = pq.ParquetFile(path, memory_map=True).iter_batches(_ROWS, columns=wanted)
        else:
            batches, content = _arrow(path)
            if hasattr(batches, "get_batch"):
                batches = map(batches.get_batch, range(batches.num_record_batches))
        for batch in batches:
            yield from _rows(path, number, batch, names, _Source(str(path.absolute()), content, copied))
            number += len(batch)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: damaged ({one_line(error)}); copy it again") from error


def _rows(path: Path, first: int, batch: Any, names: _Names, source: "_Source") -> Iterator[_Row]:
    labels = [None] * len(batch) if names.label is None else batch.column(names.label).to_pylist()
    masks = (
        [None] * len(batch)
        if names.mask is None
        else [each and each[0] for each in source.places(batch.column(names.mask))]
    )
    images = batch.column(names.image)
    paths = _paths(images)
    for index, found in enumerate(source.places(images)):
        where = f"{path}, row {first + index}"
        if found is None:
            lost = f", and no file {paths[index]}" if paths[index] else ""
            raise UserError(
                f"{where}: no bytes of an image in column {names.image!r}{lost}; save the dataset with its images, or "
                "list their files in a CSV"
            )
        yield _Row(where, *found, paths[index], labels[index], masks[index])


def _paths(images: Any) -> list[str | None]:
    import pyarrow as pa

    if not pa.types.is_struct(images.type) or images.type.get_field_index("path") < 0:
        return [None] * len(images)
    found: list[str | None] = images.flatten()[images.type.get_field_index("path")].to_pylist()
    return found


class _Source(NamedTuple):
    """A file: its path, its content where it is mapped, and where the images are copied that are not read from it."""

    path: str
    content: Any
    copied: CopiedImages

    def places(self, images: Any) -> list[tuple[Place, str] | None]:
        """The place of each image in an array, and the suffix that it should have; None for those that are nowhere.

        An image without bytes is the file at its path: `datasets` writes such rows into parquet files.
        """
        import pyarrow as pa

        paths = _paths(images)
        if pa.types.is_struct(images.type):
            images = images.flatten()[images.type.get_field_index("bytes")]
        if not len(images):
            return []
        _, offsets, data = images.buffers()
        kind = np.int64 if pa.types.is_large_binary(images.type) else np.int32
        bounds = np.frombuffer(offsets, kind)[images.offset : images.offset + len(images) + 1].tolist()
        begin = None if self.content is None or data is None else data.address - self.content.address
        # Not within the file where it is compressed.
        mapped = begin is not None and 0 <= begin < self.content.size
        found: list[tuple[Place, str] | None] = []
        for at, until, path in zip(bounds, bounds[1:], paths, strict=False):  # one bound more than images
            if until == at:
                file = None if path is None else Path(self.path).parent / path
                there = file is not None and file.is_file()
                found.append((Place(str(file), WHOLE, file.stat().st_size), file.suffix) if file and there else None)
                continue
            place = Place(self.path, begin + at, until - at) if mapped else self.copied.add(data[at:until])
            found.append((place, suffix_of(data[at : min(until, at + 12)].to_pybytes())))
        return found
