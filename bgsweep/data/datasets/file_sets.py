"""The files that hold or list the images of `data.images`, and the splits that their names tell."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from glob import has_magic, iglob
from itertools import islice, product
from pathlib import Path
from typing import Literal, NamedTuple

from bgsweep.config.columns import is_pattern
from bgsweep.errors import UserError
from bgsweep.images.files import SUFFIXES, is_junk
from bgsweep.storage.uri import is_remote

Kind = Literal["table", "webdataset", "hugging_face", "cifar"]

_KINDS: dict[str, Kind] = {
    **dict.fromkeys((".csv", ".tsv", ".jsonl", ".ndjson"), "table"),
    **dict.fromkeys((".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"), "webdataset"),
    **dict.fromkeys((".parquet", ".arrow"), "hugging_face"),
}
SPLIT_WORDS = {
    "train": {"train", "training", "trn"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing", "tst"},
}
"""Names of splits by the split's name here."""

_WORDS = set[str]().union(*SPLIT_WORDS.values())
# The numbers behind a split's name: train-000012.tar, train-00000-of-00005-a09b74b3ef9c3b56.parquet.
_NUMBER = re.compile(r"([-_.]?\d+([-_]of[-_]\d+)?(-[0-9a-f]{16})?)?$")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_BRACES = re.compile(r"\{([^{}]*)\}")
# In a folder of class folders the first few are looked into, since each costs a request on a shared disk.
_LOOKED_INTO = 4
_CIFAR = ({"data_batch_1", "test_batch"}, {"train", "test", "meta"})


class FileSet(NamedTuple):
    """Files of one kind.

    Attributes:
        uri: as the user wrote it.
        files: each with its split; empty where names tell none.
    """

    uri: str
    kind: Kind
    files: tuple[tuple[str, Path], ...]


def file_set(uri: str) -> FileSet | None:
    """The files at a path, a pattern or in a folder; None where it is a folder of images, or is not there.

    Raises:
        UserError: a file that cannot be read, files of several kinds, or a pattern that fits none.
    """
    kind = _kind(uri)
    if is_remote(uri):
        if kind is not None:
            raise UserError(
                f"{uri}: such files are read from a disk; copy them to one, or `bgsweep pack` them to a URI"
            )
        return None
    path = Path(uri).expanduser()
    if path.is_dir():
        return _in_folder(uri, path)
    if path.exists():
        if kind is None:
            raise UserError(
                f"{uri}: neither a folder nor a file that images are read from; name one of {' '.join(_KINDS)}"
            )
        return _grouped(uri, [path])
    if kind is None:
        return None
    files = sorted(_expanded(uri, str(path))) if is_pattern(uri) else []
    if not files:
        raise UserError(f"{uri}: no such file; correct the path")
    return _grouped(uri, files)


def _kind(name: str) -> Kind | None:
    return next((kind for suffix, kind in _KINDS.items() if name.lower().endswith(suffix)), None)


def _expanded(uri: str, pattern: str) -> Iterator[Path]:
    """The files that a pattern of braces ({000..012}, {train,val}) and wildcards stands for."""
    parts = _BRACES.split(pattern)
    choices = [_choices(part) if index % 2 else [part] for index, part in enumerate(parts)]
    for each in map("".join, product(*choices)):
        if has_magic(each):
            yield from map(Path, iglob(each))  # noqa: PTH207 - Path.glob takes no absolute ones
        elif not Path(each).is_file():
            raise UserError(f"{uri}: {each} is missing; copy it there, or correct the pattern")
        else:
            yield Path(each)


def _choices(inside: str) -> Iterable[str]:
    if (found := _RANGE.fullmatch(inside)) is None:
        return inside.split(",")
    first, last = found.groups()
    return (f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1))


def _in_folder(uri: str, folder: Path) -> FileSet | None:
    if (folder / "pack.json").is_file():
        raise UserError(f"{uri}: a pack; name it by data.pack, and leave data.images out")
    if (folder / "dataset_dict.json").is_file():
        splits = json.loads((folder / "dataset_dict.json").read_bytes())["splits"]
        return FileSet(uri, "hugging_face", tuple((name, file) for name in splits for file in _saved(folder / name)))
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        return FileSet(uri, "hugging_face", tuple(("", file) for file in _saved(folder)))
    for where in (folder, folder / "cifar-10-batches-py", folder / "cifar-100-python"):
        if any(all((where / name).is_file() for name in names) for names in _CIFAR):
            return FileSet(uri, "cifar", _cifar(where))
    folders, files = _listed(folder)
    # Archives often lie beside the folders that they were unpacked into; lists of files lie in folders of images.
    files = [] if folders else files
    below = [file for each in folders if _holds_files(folders) for file in each.iterdir() if _is_data(file.name)]
    found = sorted(files or below)
    return _grouped(uri, found) if found else None


def _listed(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders in a folder, and the files that images are read from; none where it holds images itself."""
    folders, files = [], []
    with os.scandir(folder) as entries:  # a million images in one folder are not all asked for what they are
        for entry in entries:
            if is_junk(entry.name):
                continue
            if entry.is_dir():
                folders.append(Path(entry.path))
            elif entry.name.lower().endswith(SUFFIXES):
                return [], []
            elif _is_data(entry.name):
                files.append(Path(entry.path))
    return sorted(folders), files


def _saved(folder: Path) -> list[Path]:
    """The files of a dataset that `datasets.save_to_disk` wrote, in order."""
    try:
        state = json.loads((folder / "state.json").read_bytes())
        return [folder / each["filename"] for each in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: state.json is missing or damaged; save the dataset again (save_to_disk)") from error


def _is_data(name: str) -> bool:
    return not is_junk(name) and _kind(name) in ("webdataset", "hugging_face")


def _holds_files(folders: list[Path]) -> bool:
    """True if the folders hold such files, not images; a few entries tell."""
    seen = [[entry.name for entry in islice(each.iterdir(), 32)] for each in folders[:_LOOKED_INTO]]
    return all(names and any(map(_is_data, names)) for names in seen)


def _cifar(folder: Path) -> tuple[tuple[str, Path], ...]:
    batches = sorted(folder.glob("data_batch_*")) or [folder / "train"]
    test = folder / ("test_batch" if (folder / "test_batch").is_file() else "test")
    return (*(("train", file) for file in batches), ("test", test))


def _grouped(uri: str, files: list[Path]) -> FileSet:
    kinds = {_kind(file.name): file for file in files}
    if len(kinds) > 1:
        raise UserError(f"{uri}: {' and '.join(file.name for file in kinds.values())} are of several kinds; name one")
    kind = next(iter(kinds))
    assert kind is not None
    apart = len({file.parent for file in files}) > 1
    splits = [file.parent.name if apart else _NUMBER.sub("", file.name.partition(".")[0]) for file in files]
    # One name that is no split's, such as that of the dataset, tells nothing.
    told = len(set(splits)) > 1 or splits[0].lower() in _WORDS
    return FileSet(uri, kind, tuple(zip(splits if told else [""] * len(files), files, strict=True)))
