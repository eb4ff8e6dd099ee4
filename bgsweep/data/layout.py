"""Detection of the splits in an image tree: folders that are splits, and substitutes for splits that are missing."""

from collections.abc import Iterable, Set
from pathlib import Path

from bgsweep.config import Data
from bgsweep.data.datasets.file_sets import SPLIT_WORDS
from bgsweep.data.datasets.formats import open_listing
from bgsweep.data.datasets.pack import Pack, splits_of
from bgsweep.images.files import SUFFIXES, is_junk
from bgsweep.storage.uri import RemoteEntry, filesystem, is_remote, list_remote

# Top-level folders with these names are splits (or masks), not classes.
_NO_CLASSES = set().union(*SPLIT_WORDS.values(), {"images", "masks"})

# In an object store each folder takes a request.
_LOOKED_INTO = 32


def recognized(data: Data) -> tuple[Data, tuple[str, ...]]:
    """Complete the configuration's splits by the folders that exist, with a line on each change.

    Class folders, and files without splits, are split by class. A validation or test split of the default name that
    does not exist is held out of `train`. Anything else stays as it is, and is an error where it is opened.
    """
    root = data.pack or data.images
    if root == "sample":
        return data, ()
    folders = _folders(root, data)
    found = {name.lower() for name in folders}
    flat = data.train == "train" and "train" not in folders and _is_flat(root, data, folders)
    if not flat and data.train != "." and data.train.partition("/")[0] not in folders:
        return data, ()
    absent = [
        name
        for name in ("validation", "test")
        if getattr(data, name) == name and name not in folders and (flat or not found & SPLIT_WORDS[name])
    ]
    complete = data.model_copy(update=dict.fromkeys(absent) | ({"train": "."} if flat else {}))
    share = f"{data.holdout:.0%} of each class"
    if flat:
        held = " and ".join(name for name in ("validation", "test") if getattr(complete, name) is None)
        what = f"{len(folders)} class folders, no splits" if folders else "no splits"
        line = f"{root}: {what}: {share} is held out for {held} each, the rest trains"
        return complete, (f"{line} (data.holdout, data.holdout_seed)",)
    return complete, tuple(f"{root}: no folder {name!r}: {share} of {data.train} is held out for it" for name in absent)


def split_folders(data: Data) -> dict[str, str]:
    """The top-level folders that are splits, by the split's name here: ``{"train": "train", "test": "val"}``.

    A single folder beside `train` is the test split, which no search may see; validation images are then held out.
    """
    folders = _folders(data.pack or data.images, data)
    found = {
        split: folder for split, names in SPLIT_WORDS.items() for folder in sorted(folders) if folder.lower() in names
    }
    if "validation" in found and "test" not in found:
        found["test"] = found.pop("validation")
    return found


def _is_flat(root: str, data: Data, folders: Set[str]) -> bool:
    """True if the folders are classes: two or more, with images directly in each of the first 32.

    True for files, and packs of files, that have no splits.
    """
    if not folders and (data.pack is not None or open_listing(root, data.columns) is not None):
        return True
    # A folder named like a split, or `masks`, means that the tree has splits, if unusual ones.
    if len(folders) < 2 or _NO_CLASSES & {name.lower() for name in folders}:
        return False
    return all(
        any(name.lower().endswith(SUFFIXES) for name in _files_in(root, data, folder))
        for folder in sorted(folders)[:_LOOKED_INTO]
    )


def _folders(root: str, data: Data) -> set[str]:
    """Names of the top-level folders, or of the splits in files."""
    if data.pack is not None:
        return splits_of(root, data.pack_cache_gb) - {"."}
    if (listing := open_listing(root, data.columns)) is not None:
        return listing.splits.keys() - {"."}
    if is_remote(root):
        return {entry.name for entry in _entries(root) if entry.is_folder}
    folder = Path(root).expanduser()
    below = folder.iterdir() if folder.is_dir() else ()
    return {path.name for path in below if path.is_dir() and not is_junk(path.name)}


def _files_in(root: str, data: Data, folder: str) -> Iterable[str]:
    if data.pack is not None:
        return (name for name in Pack(root, folder, cache_gb=data.pack_cache_gb).ids if "/" not in name)
    if is_remote(root):
        return (entry.name for entry in _entries(f"{root.rstrip('/')}/{folder}") if not entry.is_folder)
    return (path.name for path in (Path(root).expanduser() / folder).iterdir())


def _entries(uri: str) -> list[RemoteEntry]:
    return list_remote(uri, *filesystem(uri), recursive=False)
