"""Photographs in folders, one folder a class, with masks in a tree that mirrors them."""

import difflib
import os
from collections.abc import Sequence
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bgsweep.data.decode import Size, UnreadableImage, decode_image, decode_mask
from bgsweep.data.digest import digest
from bgsweep.data.names import Names
from bgsweep.data.outlines import Outlines
from bgsweep.data.sample import UNLABELLED, Mask, Sample
from bgsweep.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
# Sets of more files than this are digested by names and sizes: reading all of ImageNet takes an hour.
DIGESTED_WHOLE = 20_000
PROBES = 4


class Folder:
    """``<images>/<split>/<class>/…/*.jpg`` and, where there are masks, ``<masks>/<split>/<class>/…/*.png``.

    A split that holds photographs and no folders is a set without labels. Files whose names begin with a dot are
    passed over. The photographs' order is that of their names.

    Args:
        images: folder of the splits.
        split: sub-folder; ``.`` for `images` itself.
        masks: folder that mirrors `images`.
        resize: shorter side in pixels that photographs and masks are brought to.
        classes: names that labels index into; by default those of the split's folders.
        fast_jpeg: as in `decode_image`.

    Raises:
        UserError: no such folder, fewer than two photographs, a photograph without mask, masks of another size or coded
            0 and 1 (a few are looked at), a class that is not in `classes`.
    """

    def __init__(
        self,
        images: Path,
        split: str,
        masks: Path | None = None,
        resize: int | None = None,
        classes: Sequence[str] | None = None,
        fast_jpeg: bool = False,
    ) -> None:
        self.name = f"{images.absolute().name}/{split}"
        self.resize, self._fast = resize, fast_jpeg
        self.has_masks = masks is not None
        self._outlines = Outlines()
        self._images = _split_folder(images, split, "data.images")
        names = _scan(self._images, SUFFIXES)
        check_count(self._images, names)
        own = class_of_each(self._images, names)
        self.classes: Sequence[str] = sorted(set(own) - {""}) if classes is None else classes
        self.labels = labels_of(self._images, own, self.classes)
        self.ids: Sequence[str] = Names(names)
        if masks is not None:
            self._masks = _split_folder(masks, split, "data.masks")
            _check_masks(self._masks, names)
            self._probe()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Raises UnreadableImage where the photograph cannot be decoded."""
        name = self.ids[index]
        path = f"{self._images}/{name}"
        image, size = decode_image(_read(path), path, self.resize, self._fast)
        label = int(self.labels[index])
        if not self.has_masks:
            return Sample(name, image, label)
        decode = partial(self._load_mask, name, size)
        kept = self._outlines
        return Sample(name, image, label, partial(kept.mask, index, decode), partial(kept.rect, index, decode))

    def digests(self) -> dict[str, str]:
        """As `Source` says; of more than 20,000 files the sizes stand for the contents."""
        return self._digests

    @cached_property
    def _digests(self) -> dict[str, str]:
        digests = {"images": _digest(self._images, self.ids)}
        if self.has_masks:
            digests["masks"] = _digest(self._masks, [mask_name(name) for name in self.ids])
        return digests

    def _load_mask(self, name: str, image_size: Size) -> Mask:
        path = f"{self._masks}/{mask_name(name)}"
        return decode_mask(_read(path), path, image_size, f"{self._images}/{name}", self.resize)

    def _probe(self) -> None:
        """Look at a few masks before a long run does."""
        for index in np.linspace(0, len(self) - 1, PROBES).astype(int):
            try:
                mask = self[index].mask
            except UnreadableImage:
                continue
            if mask is not None and mask.max() == 1:
                path = f"{self._masks}/{mask_name(self.ids[index])}"
                raise UserError(f"{path}: its foreground is 1; masks go from 0 (background) to 255 (foreground)")


def _split_folder(root: Path, split: str, key: str) -> Path:
    if not root.is_dir():
        siblings = [path.name for path in root.parent.iterdir() if path.is_dir()] if root.parent.is_dir() else []
        raise UserError(f"{key}: no folder {root}; {nearest(root.name, siblings)}")
    folder = root / split
    if not folder.is_dir():
        splits = [path.name for path in root.iterdir() if path.is_dir()]
        raise UserError(f"{key}: {root} has no split {split!r}; {nearest(split, splits)}")
    return folder


def nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there are: {', '.join(sorted(known)[:12])}" if known else "there is no folder at that place"


def _scan(folder: Path, suffixes: tuple[str, ...], below: str = "") -> list[str]:
    """Names of the files with such an ending, relative to the folder, sorted."""
    found: list[str] = []
    with os.scandir(folder / below) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                found += _scan(folder, suffixes, f"{below}{entry.name}/")
            elif entry.name.lower().endswith(suffixes):
                found.append(below + entry.name)
    return sorted(found)


def check_count(folder: Path | str, names: Sequence[str]) -> None:
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


def labels_of(folder: Path | str, own: Sequence[str], classes: Sequence[str]) -> npt.NDArray[np.int64]:
    numbers = {"": UNLABELLED} | {name: number for number, name in enumerate(classes)}
    for unknown in sorted(set(own) - numbers.keys()):
        raise UserError(f"{folder}/{unknown}: the training split has no such class; {nearest(unknown, classes)}")
    return np.array([numbers[name] for name in own], np.int64)


def mask_name(image: str) -> str:
    """Where the mask of a photograph is, below the masks' root."""
    return image.rpartition(".")[0] + ".png"


def _check_masks(folder: Path, names: Sequence[str]) -> None:
    masks = set(_scan(folder, (".png",)))
    missing = [mask for name in names if (mask := mask_name(name)) not in masks]
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} of {len(names)} images have no mask, the first missing is {missing[0]}; "
            "each image needs a PNG of the same name: see `bgsweep masks make`"
        )


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnreadableImage(f"{path}: {error.strerror}") from error


def _digest(folder: Path, names: Sequence[str]) -> str:
    paths = (folder / name for name in names)
    if len(names) > DIGESTED_WHOLE:
        return digest(names, (str(path.stat().st_size).encode() for path in paths))
    return digest(names, (path.read_bytes() for path in paths))
