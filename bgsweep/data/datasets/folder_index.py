"""The index of a split's folder: names, classes and masks, scanned once on a machine and mapped by all processes."""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bgsweep.config.mask_format import MaskFormat
from bgsweep.data.mask_check import Pair, check_masks, form_of
from bgsweep.data.missing_masks import mask_file, match_masks
from bgsweep.data.names import Names
from bgsweep.data.sample import UNLABELLED
from bgsweep.errors import UserError, collected_warnings, warn_once
from bgsweep.images.files import SUFFIXES, images_among, read_file, walk
from bgsweep.storage.atomic import write_whole
from bgsweep.storage.shared_arrays import LARGE, Arrays, index_folder, locked, shared_arrays

_FORMAT = 2
# Folders that changed less than so many seconds ago may change again without another time of change.
_UNSETTLED = 2.0
PLAIN = MaskFormat()

Seen = dict[str, dict[str, os.stat_result]]
"""Folders of each root with their status from before they were listed."""


class FolderIndex(NamedTuple):
    """The contents of a folder.

    Attributes:
        names: of the images, sorted.
        labels: indices into `classes`, or ``UNLABELLED``.
        classes: names of the class folders.
        masks: the `MaskFile` of each image; empty where no masks were asked for.
        mask_kinds: the number of masks of each kind (`mask_kinds.kind_of`) among those that were looked at.
        file: the name of the file that holds all this; None for a small set, or one that cannot be kept.
    """

    names: Names
    labels: npt.NDArray[np.int64]
    classes: list[str]
    masks: npt.NDArray[np.uint8]
    mask_kinds: dict[str, int]
    file: Path | None


def folder_index(images: Path, masks: Path | None, mask_format: MaskFormat = PLAIN) -> FolderIndex:
    """The index of a split's images and masks; the first process of a machine scans a large one.

    It is found again by the times of change of all folders: adding, removing or renaming a file changes its folder's.

    Raises:
        UserError: as `Folder`.
    """
    roots = {"images": images} | ({"masks": masks} if masks is not None else {})
    scan = partial(_scan, roots, mask_format)
    base = index_folder() / _key(roots, mask_format)
    if (known := _known(base, roots)) is not None:
        return _index(shared_arrays(known, partial(scan, {})), known)
    if len(list(islice(walk(images), LARGE + 1))) <= LARGE:
        return _index(scan({}), None)
    with locked(base):
        if (known := _known(base, roots)) is not None:  # another process has scanned meanwhile
            return _index(shared_arrays(known, partial(scan, {})), known)
        return _keep(base, roots, scan)


def check_count(folder: Path | str, names: Sequence[str]) -> None:
    """Raise UserError unless there are two images or more."""
    if not names:
        raise UserError(f"{folder}: no images in it ({' '.join(SUFFIXES)}); put them there, in one folder a class")
    if len(names) == 1:
        raise UserError(f"{folder}: only one image in it ({names[0]}); nothing can be learnt from fewer than two")


def class_of_each(folder: Path | str, names: Sequence[str]) -> list[str]:
    """The first folder in each name; empty strings where there are no folders."""
    classes = [name.partition("/")[0] if "/" in name else "" for name in names]
    for (before, name), (after, other) in pairwise(zip(classes, names, strict=True)):
        if bool(before) != bool(after):
            stray = name if after else other
            raise UserError(f"{folder}: {stray} lies beside class folders; put it into one of them or remove it")
    return classes


def _key(roots: dict[str, Path], mask_format: MaskFormat) -> str:
    said = [_FORMAT, repr(mask_format), platform.node(), *((kind, str(root.resolve())) for kind, root in roots.items())]
    return hashlib.sha256(repr(said).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _known(base: Path, roots: dict[str, Path]) -> Path | None:
    """The file of the index if there is one of the folders as they are now."""
    try:
        folders = json.loads(_listing(base).read_bytes())
        states = [(kind, below, *_state((roots[kind] / below).stat())) for kind in roots for below in folders[kind]]
        known = _file(base, states)
        return known if known.exists() else None
    except (OSError, ValueError, KeyError):
        return None


def _keep(base: Path, roots: dict[str, Path], scan: Callable[[Seen], Arrays]) -> FolderIndex:
    seen: Seen = {kind: {} for kind in roots}
    arrays = scan(seen)
    settled = time.time() - _UNSETTLED
    if any(status.st_ctime > settled for statuses in seen.values() for status in statuses.values()):
        return _index(shared_arrays(None, lambda: arrays), None)
    states = [(kind, below, *_state(status)) for kind, statuses in seen.items() for below, status in statuses.items()]
    file = _file(base, states)
    kept = shared_arrays(file, lambda: arrays)
    try:
        listing = json.dumps({kind: list(statuses) for kind, statuses in seen.items()})
        write_whole(_listing(base), listing.encode(), durable=False)
    except OSError:  # `shared_arrays` has warned
        return _index(kept, None)
    return _index(kept, file)


def _listing(base: Path) -> Path:
    return base.with_suffix(".folders.json")


def _file(base: Path, states: list[tuple[Any, ...]]) -> Path:
    mark = hashlib.sha256(json.dumps(states).encode()).hexdigest()[:16]
    return base.with_name(f"{base.name}-{mark}.arrays")


def _state(status: os.stat_result) -> tuple[int, int, int]:
    # Programs such as tar set a folder's time of modification back; nothing sets that of its status.
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _scan(roots: dict[str, Path], mask_format: MaskFormat, seen: Seen) -> Arrays:
    """List the folders; `seen` gets the status of each, from before it was listed."""
    with collected_warnings() as warnings:
        images = roots["images"]
        names = images_among(str(images), (name for name, _ in walk(images, seen=seen.get("images"))))
        check_count(images, names)
        own = class_of_each(images, names)
        classes = sorted(set(own) - {""})
        masks, kinds = np.empty(0, np.uint8), dict[str, int]()
        if "masks" in roots:
            masks, kinds = _masks(images, roots["masks"], names, mask_format, seen.get("masks"))
    numbers = {"": UNLABELLED} | {name: number for number, name in enumerate(classes)}
    listed = Names(names)
    about = json.dumps({"classes": classes, "warnings": warnings, "mask_kinds": kinds}).encode()
    return {
        "text": listed.text,
        "bounds": listed.bounds,
        "labels": np.array([numbers[name] for name in own], np.int64),
        "masks": masks,
        "about": np.frombuffer(about, np.uint8),
    }


def _masks(
    images: Path,
    masks: Path,
    names: Sequence[str],
    mask_format: MaskFormat,
    seen: dict[str, os.stat_result] | None,
) -> tuple[npt.NDArray[np.uint8], dict[str, int]]:
    pattern = mask_format.pattern
    found = match_masks(str(masks), names, (name for name, _ in walk(masks, seen=seen)), pattern)

    def pair(index: int) -> Pair:
        image, mask = f"{images}/{names[index]}", f"{masks}/{mask_file(names[index], found[index], pattern)}"
        return Pair(image, mask, partial(read_file, image), partial(read_file, mask))

    # Now, because wrong masks would only show in the results of the run.
    return found, check_masks(len(names), pair, local=True, form=form_of(mask_format))


def _index(arrays: Arrays, file: Path | None) -> FolderIndex:
    about = json.loads(arrays["about"].tobytes())
    for line in about["warnings"]:
        warn_once(line, kept=True)
    names = Names.of(arrays["text"], arrays["bounds"])
    return FolderIndex(names, arrays["labels"], about["classes"], arrays["masks"], about["mask_kinds"], file)
