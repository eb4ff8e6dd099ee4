"""Masks in other forms, one image at a time: files named after the images, and COCO's annotations."""

import io
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

import numpy as np

from bgsweep.config.mask_format import MaskFormat
from bgsweep.data.mask_check import form_of
from bgsweep.data.missing_masks import MaskFile, mask_file, mask_name, match_masks
from bgsweep.errors import UserError, WrongMask
from bgsweep.images.compositing import Mask, foreground_area
from bgsweep.images.decoding import read_gray
from bgsweep.images.mask_levels import ids_of, seen_ids
from bgsweep.masks.segments import CocoImage, coco_images, decode_segment, parsed, sam_segments
from bgsweep.storage.tree import Tree

Instances = Literal["union", "largest"]


class MaskSource(Protocol):
    """Masks of images, wherever they come from."""

    def mask_of(self, image: str) -> Mask | None:
        """The foreground of an image at the size of its annotation, 0 to 255; None: there is no annotation of it.

        Raises:
            UnreadableImage: its file is damaged.
            WrongMask: its file does not say what is foreground.
        """
        ...

    def changed(self, image: str) -> float | None:
        """Time of the last change of an image's annotation in seconds; None: there is none."""
        ...

    def hint(self) -> str:
        """Something that tells why all masks may be empty; else an empty text."""
        ...


class MaskFiles:
    """Files named after their images: images of any form, NumPy arrays, SAM's automatic masks.

    Args:
        tree: the files.
        images: names of the images.
        given: the format; a ``*`` in its pattern stands for any characters, so that an image has several files.
        instances: of several masks of an image, all are foreground, or the largest; None: all, but SAM's, whose
            segments cover the background too, are refused.

    Raises:
        UserError: two images would share a file, or no image has one.
    """

    def __init__(self, tree: Tree, images: Sequence[str], given: MaskFormat, instances: Instances | None) -> None:
        self._tree, self._instances, self._form = tree, instances, form_of(given)
        self._stats = tree.files()
        find = _several if "*" in given.pattern else _single
        self._files = find(tree.uri, images, self._stats, given.pattern)

    def mask_of(self, image: str) -> Mask | None:
        names = self._files.get(image)
        if names is None:
            return None
        return united((mask for name in names for mask in self._masks(name)), self._instances, names[0])

    def changed(self, image: str) -> float | None:
        names = self._files.get(image)
        return None if names is None else max(self._stats[name].changed for name in names)

    def hint(self) -> str:
        if self._form.foreground is None:
            return ""
        name = next(iter(self._files.values()))[0]
        return f"{self._tree.uri}/{name} has the ids {seen_ids(self._tree.read(name), name, self._form)}; "

    def _masks(self, name: str) -> Iterable[Mask]:
        """The masks in one file."""
        data, where = self._tree.read(name), f"{self._tree.uri}/{name}"
        if name.lower().endswith(".json"):
            segments = sam_segments(parsed(data, where), where)
            if self._instances is None:
                raise WrongMask(
                    f"{where}: SAM's segments cover the background too; choose --instances largest or union"
                )
            return [decode_segment(segment, None, where) for segment in segments]
        if self._form.foreground is not None and self._instances == "largest":
            ids = ids_of(data, where, self._form)
            numbers = self._form.foreground_ids(ids)
            return [(ids == number).astype(np.uint8) * np.uint8(255) for number in numbers] or [self._form.mask_of(ids)]
        return [read_gray(part, where, self._form) for part in _unstacked(data, where)]


class CocoMasks:
    """The masks of a COCO file; images are found by their path, its last parts, or their name alone.

    Args:
        data: content of the file.
        name: the file, for errors.
        images: names of the images.
        categories: names or ids of those that are foreground; none: all.
        instances: as of `MaskFiles`; None: all.
        changed: time of the file's last change.

    Raises:
        UserError: it is no COCO file, has no such category, none of the images, one for two images, or two that an
            image could be.
    """

    def __init__(
        self,
        data: bytes,
        name: str,
        images: Sequence[str],
        categories: Sequence[str],
        instances: Instances | None,
        changed: float = 0.0,
    ) -> None:
        self._name, self._instances, self._changed = name, instances, changed
        entries = coco_images(parsed(data, name), name, categories)
        known, called = set(images), dict[str, list[str]]()
        for path in entries.keys() - known:
            called.setdefault(path.rpartition("/")[2], []).append(path)
        self._entries: dict[str, CocoImage] = {}
        owners: dict[str, str] = {}
        for image in images:
            ends = [image[at + 1 :] for at, letter in enumerate(image) if letter == "/"]
            by_path = [path for path in (image, *ends) if path in entries][:1]
            found = by_path or sorted(called.get(image.rpartition("/")[2], []))
            if len(found) > 1:
                raise UserError(f"{name}: {image} could be {' or '.join(found[:2])}; give it the path of one")
            if found and (other := owners.setdefault(found[0], image)) != image:
                raise UserError(f"{name}: {other} and {image} would both be its {found[0]}; rename one of them")
            if found:
                self._entries[image] = entries[found[0]]
        if not self._entries:
            listed = next(iter(entries), "none")
            raise UserError(f"{name}: has none of the images, such as {images[0]}; its first is {listed}")

    def mask_of(self, image: str) -> Mask | None:
        entry = self._entries.get(image)
        if entry is None:
            return None
        where = f"{self._name}: {image}"
        empty = np.zeros(entry.size, np.uint8)
        masks = (decode_segment(segment, entry.size, where) for segment in entry.segments if segment)
        return united((empty, *masks), self._instances, where)

    def changed(self, image: str) -> float | None:
        return self._changed if image in self._entries else None

    def hint(self) -> str:
        return ""


def united(masks: Iterable[Mask], instances: Instances | None, name: str) -> Mask:
    """One mask of several; raises WrongMask if there are none, or they differ in size."""
    found: Mask | None = None
    for mask in masks:
        if found is None:
            found = mask
        elif found.shape != mask.shape:
            sizes = " and ".join(f"{width}x{height}" for height, width in (found.shape, mask.shape))
            raise WrongMask(f"{name}: its masks have different sizes, {sizes} pixels; correct them")
        elif instances == "largest":
            found = max(found, mask, key=foreground_area)
        else:
            found = np.maximum(found, mask)
    if found is None:
        raise WrongMask(f"{name}: has no mask in it; remove it, so that its image counts as one without mask")
    return found


def _unstacked(data: bytes, where: str) -> list[bytes]:
    """The parts of a file: those of a NumPy array of N x height x width, one an instance; else itself.

    Raises:
        WrongMask: an array that has several masks of each instance.
    """
    if not data.startswith(b"\x93NUMPY"):
        return [data]
    try:
        stack = np.load(io.BytesIO(data), allow_pickle=False)
    except ValueError:  # damaged, which its reader says
        return [data]
    if stack.ndim == 4:
        if stack.shape[1] != 1:
            shape = "x".join(map(str, stack.shape))
            raise WrongMask(
                f"{where}: an array of {shape}, where N x height x width or N x 1 x height x width is needed; of SAM's "
                "masks of each instance keep one (multimask_output=False)"
            )
        stack = stack.squeeze(1)
    if stack.ndim != 3 or stack.shape[2] in (1, 3, 4):
        return [data]
    return [_saved(part) for part in stack]


def _saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _single(root: str, images: Sequence[str], files: Iterable[str], pattern: str) -> dict[str, list[str]]:
    """The file of each image that has one."""
    found = zip(images, match_masks(root, images, files, pattern, most_missing=1 - 0.5 / len(images)), strict=True)
    return {image: [mask_file(image, kind, pattern)] for image, kind in found if kind != MaskFile.MISSING}


def _several(root: str, images: Sequence[str], files: Iterable[str], pattern: str) -> dict[str, list[str]]:
    """The files of each image that has any, where ``*`` stands for any characters but a slash."""
    forward = sorted(files)
    backward = sorted(name[::-1] for name in forward)
    found: dict[str, list[str]] = {}
    owners: dict[str, str] = {}
    for image in images:
        wanted = mask_name(image, pattern)
        start, end = wanted.partition("*")[0], wanted.rpartition("*")[2]
        # The longer of the two literal ends finds a few candidates in a sorted list.
        if len(start) >= len(end):
            near = _beginning(forward, start)
        else:
            near = [name[::-1] for name in _beginning(backward, end[::-1])]
        fits = re.compile("[^/]*".join(map(re.escape, wanted.split("*"))))
        if own := sorted(name for name in near if fits.fullmatch(name)):
            found[image] = own
        for name in own:
            if (other := owners.setdefault(name, image)) != image:
                raise UserError(
                    f"{root}: {name} fits the pattern for {other} and for {image}; give a narrower --pattern"
                )
    if not found:
        there = forward[0] if forward else "nothing"
        raise UserError(f"{root}: no file for any image, such as {mask_name(images[0], pattern)}; there lies {there}")
    return found


def _beginning(names: Sequence[str], start: str) -> list[str]:
    """The names in a sorted list that begin so."""
    first = bisect_left(names, start)
    last = bisect_left(names, start + chr(0x10FFFF), first)
    return list(names[first:last])
