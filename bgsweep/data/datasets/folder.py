"""Images in folders, one folder a class, with masks in a tree that mirrors them."""

import difflib
from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bgsweep.data.datasets.mask_cache import MaskCache
from bgsweep.data.mask_check import Pair, check_masks
from bgsweep.data.names import Names
from bgsweep.data.sample import UNLABELLED, Mask, Sample
from bgsweep.errors import UnreadableImage, UserError
from bgsweep.images.decoding import Size, decode_image, decode_mask
from bgsweep.images.files import SUFFIXES, images_among, read_file, walk
from bgsweep.storage.hashing import digest
from bgsweep.storage.tree import Tree

# Sets of more files than this are digested by names and sizes: reading all of ImageNet takes an hour.
DIGESTED_WHOLE = 20_000


class Folder:
    """``<images>/<split>/<class>/…/*.jpg`` and, where there are masks, ``<masks>/<split>/<class>/…/*.png``.

    A split that holds images and no folders is unlabelled. Hidden files and those that operating systems create are
    skipped. Images are sorted by name.

    Args:
        images: folder of the splits.
        split: sub-folder; ``.`` for `images` itself.
        masks: folder that mirrors `images`.
        resize: shorter side in pixels that images and masks are resized to.
        classes: names that labels index into; by default those of the split's folders.
        fast_jpeg: as in `decode_image`.

    Raises:
        UserError: no such folder, fewer than two images, an image without mask, two that share one, wrong masks (see
            `check_masks`), a class that is not in `classes`.
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
        self.name = images.absolute().name if split == "." else f"{images.absolute().name}/{split}"
        self.resize, self._fast = resize, fast_jpeg
        self.has_masks = masks is not None
        self._mask_cache = MaskCache()
        self._images = _split_folder(images, split, "data.images")
        # Two splits may be links to one folder: `leaks` compares resolved paths.
        self._resolved = self._images.resolve()
        names = images_among(str(self._images), (name for name, _ in walk(self._images)))
        check_count(self._images, names)
        own = class_of_each(self._images, names)
        self.classes: Sequence[str] = sorted(set(own) - {""}) if classes is None else classes
        self.labels = labels_of(self._images, own, self.classes)
        self.ids: Sequence[str] = Names(names)
        if masks is not None:
            self._masks = _split_folder(masks, split, "data.masks")
            self._mask_names = match_masks(str(self._masks), names, (name for name, _ in walk(self._masks)))
            # Now, because wrong masks would only show in the results of the run.
            check_masks(len(self), self._pair, local=True)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Raises UnreadableImage where the image cannot be decoded."""
        name = self.ids[index]
        path = f"{self._images}/{name}"
        image, size = decode_image(read_file(path), path, self.resize, self._fast)
        label = int(self.labels[index])
        if not self.has_masks:
            return Sample(name, image, label)
        decode = partial(self._load_mask, name, size)
        # PNG masks of ImageNet's size take 0.34 ms to decode, a third of the JPEG's time.
        cache = self._mask_cache
        return Sample(name, image, label, partial(cache.mask, index, decode), partial(cache.rect, index, decode))

    def digests(self) -> dict[str, str]:
        """As `ImageDataset` says; of more than 20,000 files the sizes stand for the contents."""
        return self._digests

    @cached_property
    def _digests(self) -> dict[str, str]:
        digests = {"images": _digest(self.ids, (f"{self._images}/{name}" for name in self.ids))}
        if self.has_masks:
            names = [mask_name(name) for name in self.ids]
            digests["masks"] = _digest(names, (self._mask_path(name) for name in self.ids))
        return digests

    def location_of(self, index: int) -> str:
        """Location of an image: the same in all splits that hold it."""
        return f"{self._resolved}/{self.ids[index]}"

    def size_of(self, index: int) -> int:
        """Size of an image's file in bytes; raises UnreadableImage."""
        try:
            return (self._images / self.ids[index]).stat().st_size
        except OSError as error:
            raise UnreadableImage(f"{self._images}/{self.ids[index]}: {error.strerror}") from error

    def encoded(self, index: int) -> bytes:
        """Content of an image's file; raises UnreadableImage."""
        return read_file(f"{self._images}/{self.ids[index]}")

    def _load_mask(self, name: str, image_size: Size) -> Mask:
        path, image = self._mask_path(name), f"{self._images}/{name}"
        return decode_mask(read_file(path), path, image_size, image, self.resize, partial(read_file, image))

    def _mask_path(self, name: str) -> str:
        return f"{self._masks}/{self._mask_names.get(name) or mask_name(name)}"

    def _pair(self, index: int) -> Pair:
        image, mask = f"{self._images}/{self.ids[index]}", self._mask_path(self.ids[index])
        return Pair(image, mask, partial(read_file, image), partial(read_file, mask))


def _split_folder(root: Path, split: str, key: str) -> Path:
    if not root.is_dir():
        siblings = [path.name for path in root.parent.iterdir() if path.is_dir()] if root.parent.is_dir() else []
        raise UserError(f"{key}: no folder {root}; {nearest(root.name, siblings)}")
    folder = root / split
    if not folder.is_dir():
        splits = [path.name for path in root.iterdir() if path.is_dir()]
        if key == "data.masks":
            raise UserError(f"{key}: {root} has no split {split!r}; {nearest(split, splits)}")
        cure = "name one by data.train, data.validation or data.test; null for the last two holds out a share of train"
        raise UserError(f"{key}: {root} has no split {split!r}; {nearest(split, splits)} ({cure})")
    return folder


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint for errors: the known name nearest to a name, else the known names."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there are: {', '.join(sorted(known)[:12])}" if known else "there are no folders"


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


def labels_of(folder: Path | str, own: Sequence[str], classes: Sequence[str]) -> npt.NDArray[np.int64]:
    """Indices into `classes` of the images' own classes; raises UserError for a class that is not among them."""
    numbers = {"": UNLABELLED} | {name: number for number, name in enumerate(classes)}
    for unknown in sorted(set(own) - numbers.keys()):
        raise UserError(f"{folder}/{unknown}: the training split has no such class; {nearest(unknown, classes)}")
    return np.array([numbers[name] for name in own], np.int64)


def image_names(tree: Tree, files: Iterable[str]) -> list[str]:
    """The images among a tree's files.

    Raises:
        UserError: none is.
    """
    names = images_among(tree.uri, files)
    if not names:
        raise UserError(f"{tree.uri}: no such folder, or no images in it; name a folder with {' '.join(SUFFIXES)}")
    return names


def mask_name(image: str) -> str:
    """Path of an image's mask below the masks' root."""
    return image.rpartition(".")[0] + ".png"


def match_masks(root: str, names: Sequence[str], there: Iterable[str]) -> dict[str, str]:
    """Find each image's mask; gives those not named as by `mask_name`, because they end in ``.PNG``.

    Args:
        root: folder or URI of the masks, for errors.
        names: the images.
        there: all files below `root`.

    Raises:
        UserError: an image has no mask, or two have the same.
    """
    check_stems(root, names)
    files, capitals, missing = set(there), {}, []
    if not files:
        raise UserError(f"{root}: no such folder, or no masks in it; each image needs a PNG: see `bgsweep masks make`")
    for name in names:
        wanted = mask_name(name)
        if (other := f"{wanted[:-4]}.PNG") in files and wanted not in files:
            capitals[name] = other
        elif wanted not in files:
            missing.append(wanted)
    if missing:
        raise UserError(
            f"{root}: {len(missing)} of {len(names)} images have no mask, the first missing is {missing[0]}; "
            f"{_instead(missing[0], files)}each image needs a PNG of the same name: see `bgsweep masks make`"
        )
    return capitals


def check_stems(root: str, names: Sequence[str]) -> None:
    """Raise UserError where two images would share a mask."""
    owners: dict[str, str] = {}
    for name in names:
        other = owners.setdefault(mask_name(name), name)
        if other != name:
            raise UserError(f"{root}: {other} and {name} would share the mask {mask_name(name)}; rename one of them")


def _instead(wanted: str, files: set[str]) -> str:
    """A hint for errors: the files nearest to a missing mask."""
    folder, _, _ = wanted.rpartition("/")
    near = sorted(file for file in files if file.startswith(wanted[:-4]) and file != wanted)
    if near:
        return f"{near[0]} lies there, but "
    beside = sorted(file for file in files if file.rpartition("/")[0] == folder)
    return f"there lies {beside[0]}, for instance, but " if beside else ""


def _digest(names: Sequence[str], paths: Iterable[str]) -> str:
    """As `ImageDataset.digests`; files that cannot be read count as empty."""
    if len(names) > DIGESTED_WHOLE:
        return digest(names, (str(_size_of(path)).encode() for path in paths))
    return digest(names, map(_content, paths))


def _size_of(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _content(path: str) -> bytes:
    try:
        return read_file(path)
    except UnreadableImage:
        return b""
