"""CSV, TSV and JSONL files with the path of an image in each row, and perhaps its label, mask and split."""

import csv
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from bgsweep.config.columns import Columns
from bgsweep.data.datasets.entries import WHOLE, Entries, Entry, Place, column, is_image, named
from bgsweep.data.datasets.file_sets import FileSet
from bgsweep.data.readable import in_order
from bgsweep.errors import UserError, one_line
from bgsweep.images.files import SUFFIXES

# Shared file systems answer in a third of a millisecond, whoever else asks.
_PART, _THREADS = 512, 8
_OPTIONAL = ("label", "mask", "split")

Row = tuple[str, Mapping[str, Any]]
"""The file and line, for errors, and the row's values."""


class _Names(NamedTuple):
    """The columns of a file; `late` are usual ones that its first row lacks."""

    image: str
    label: str | None
    mask: str | None
    split: str | None
    late: tuple[str, ...]


def table_entries(files: FileSet, columns: Columns) -> Entries:
    """The images that the rows name.

    Raises:
        UserError: a row or column that cannot be used, or a path at which there is no file.
    """
    return Entries(chain.from_iterable(_entries(split, path, columns) for split, path in files.files))


def _entries(split: str, file: Path, columns: Columns) -> Iterator[Entry]:
    rows = _json_rows(file) if file.suffix.lower() in (".jsonl", ".ndjson") else _csv_rows(file)
    first = next(rows, None)
    if first is None:
        raise UserError(f"{file}: no rows in it; write one for each image")
    there = list(first[1])
    names = _Names(
        column(columns.image, ("path", "file_name"), there, "image", str(file), needed=True) or "",
        column(columns.label, ("label",), there, "label", str(file)),
        column(columns.mask, ("mask",), there, "mask", str(file)),
        column(columns.split, ("split",), there, "split", str(file)),
        tuple(key for key in _OPTIONAL if getattr(columns, key) is None and key not in there),
    )
    root = Path(columns.root).expanduser() if columns.root is not None else file.parent
    if not root.is_dir():
        raise UserError(f"data.columns.root: no folder {root}; correct it")
    rows = chain([first], rows)
    parts = iter(lambda: list(islice(rows, _PART)), [])
    for found in in_order(partial(_found, split, os.path.abspath(root), names), parts, _THREADS, _THREADS):  # noqa: PTH100
        yield from found


def _found(split: str, root: str, names: _Names, rows: Sequence[Row]) -> list[Entry]:
    return [_entry(split, root, names, where, row) for where, row in rows]


def _entry(split: str, root: str, names: _Names, where: str, row: Mapping[str, Any]) -> Entry:
    for key in names.late:
        if row.get(key) is not None:  # in JSONL: rows of a CSV have the names of its first line
            cure = f"give all rows the same keys (null for none), or read none (data.columns.{key}=none)"
            raise UserError(f"{where}: has the key {key!r}, which the file's first row lacks; {cure}")
    path = _text(row, names.image, where)
    if not path:
        raise UserError(f"{where}: no path in column {names.image!r}; fill it in, or remove the row")
    if not is_image(path):
        raise UserError(f"{where}: {path} is not named as an image ({' '.join(SUFFIXES)}); convert or remove it")
    if names.split is not None:
        split = _text(row, names.split, where)
        if not split or split == "." or "/" in split:
            raise UserError(f"{where}: {split!r} in column {names.split!r} cannot be a split's name; correct it")
    mask = _text(row, names.mask, where) if names.mask is not None else ""
    label = _text(row, names.label, where) if names.label is not None else ""
    placed = _place(root, path, where)
    return Entry(split, named(path), label or None, placed, _place(root, mask, where) if mask else None, where)


def _place(root: str, path: str, where: str) -> Place:
    if "://" in path:
        raise UserError(f"{where}: {path}: files are read from a disk; copy them to one and name their paths")
    full = os.path.normpath(os.path.join(root, path))  # noqa: PTH118 - for millions of paths
    try:
        status = os.stat(full)  # noqa: PTH116
    except (OSError, ValueError) as error:
        cure = "correct the path, or name the folder at which paths begin by data.columns.root"
        raise UserError(f"{where}: no file {full}; {cure}") from error
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{where}: {full} is not a file; correct the path")
    return Place(full, WHOLE, status.st_size)


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if isinstance(value, str):
        return value.strip()
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise UserError(f"{where}: {json.dumps(value)} in {name!r} is neither a text nor a whole number; correct it")


def _csv_rows(file: Path) -> Iterator[Row]:
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            header = [name.strip() for name in next(reader, [])]
            for values in reader:
                where = f"{file}, line {reader.line_num}"
                if values and len(values) != len(header):
                    count = f"{len(values)} values, but the first line has {len(header)} names"
                    raise UserError(f"{where}: {count}; put values that hold a {delimiter!r} into double quotes")
                if values:
                    yield where, dict(zip(header, values, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(file, error) from error


def _json_rows(file: Path) -> Iterator[Row]:
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{file}, line {number}", _object(line, f"{file}, line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(file, error) from error


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({one_line(error)}); write one object a line") from error
    if not isinstance(found, dict):
        raise UserError(f'{where}: not a JSON object; write one a line, such as {{"path": "a.jpg"}}')
    return found


def _unreadable(file: Path, error: Exception) -> UserError:
    return UserError(f"{file}: cannot be read ({one_line(error)}); save it as CSV or JSONL in UTF-8")
