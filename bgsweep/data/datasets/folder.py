"""Images in folders, one folder a class, with masks in a tree that mirrors them."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bgsweep.config.mask_format import MaskFormat
from bgsweep.data.datasets.folder_index import PLAIN, folder_index
from bgsweep.data.datasets.mask_cache import MaskCache
from bgsweep.data.datasets.wrappers import derived_arrays
from bgsweep.data.mask_check import form_of
from bgsweep.data.missing_masks import MaskFile, mask_file, mask_name, missing_among
from bgsweep.data.order import spread_evenly
from bgsweep.data.readable import in_order
from bgsweep.data.sample import UNLABELLED, Image, Mask, Sample
from bgsweep.errors import UnreadableImage, UserError
from bgsweep.images.decoding import Size, decode_image, decode_mask
from bgsweep.images.files import SUFFIXES, images_among, read_file, size_of
from bgsweep.images.mask_form import MaskForm
from bgsweep.storage.hashing import digest
from bgsweep.storage.shared_arrays import LARGE, Arrays
from bgsweep.storage.tree import Tree

# Sets of more files than this are digested by names and sizes: reading all of ImageNet takes an hour.
DIGESTED_WHOLE = LARGE
_SIZES_AGAIN = 1_000
# Shared file systems answer in a third of a millisecond, whoever else asks.
_PART, _THREADS = 512, 8


class Folder:
    """``<images>/<split>/<class>/…/*.jpg`` and, where there are masks, ``<masks>/<split>/<class>/…/*.png``.

    An image without mask has one that is all foreground, so that no augmentation changes its background.

    A split that holds images and no folders is unlabelled. Hidden files and those that operating systems create are
    skipped. Images are sorted by name.

    Args:
        images: folder of the splits.
        split: sub-folder; ``.`` for `images` itself.
        masks: folder that mirrors `images`.
        resize: shorter side in pixels that images and masks are resized to.
        classes: names that labels index into; by default those of the split's folders.
        fast_jpeg, least_side: as in `decode_image`.
        mask_format: names and contents of the masks.

    Raises:
        UserError: no such folder, fewer than two images, too few masks (see `match_masks`), two images that share one,
            wrong masks (see `check_masks`), a class that is not in `classes`.
    """

    def __init__(
        self,
        images: Path,
        split: str,
        masks: Path | None = None,
        resize: int | None = None,
        classes: Sequence[str] | None = None,
        fast_jpeg: bool = False,
        mask_format: MaskFormat = PLAIN,
        least_side: int | None = None,
    ) -> None:
        self.name = images.absolute().name if split == "." else f"{images.absolute().name}/{split}"
        self.resize, self._fast, self._least_side = resize, fast_jpeg, least_side
        self.has_masks = masks is not None
        self._images = split_folder(images, split, "data.images")
        # Two splits may be links to one folder: `leaks` compares resolved paths.
        self._resolved = self._images.resolve()
        self._masks = None if masks is None else split_folder(masks, split, "data.masks")
        self._mask_format, self._mask_form = mask_format, form_of(mask_format)
        index = folder_index(self._images, self._masks, mask_format)
        self.ids: Sequence[str] = index.names
        self.classes: Sequence[str] = index.classes if classes is None else classes
        self.labels = relabelled(self._images, index.labels, index.classes, self.classes)
        self._mask_files, self.identity = index.masks, index.file and index.file.name
        self.mask_kinds = index.mask_kinds
        self.missing_masks = missing_among(self.ids, self._mask_files == MaskFile.MISSING)
        self._mask_cache = MaskCache.for_images(len(self))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Raises UnreadableImage where the image cannot be decoded."""
        name = self.ids[index]
        path = f"{self._images}/{name}"
        image, size = decode_image(read_file(path), path, self.resize, self._fast, self._least_side)
        label = int(self.labels[index])
        if not self.has_masks:
            return Sample(name, image, label)
        if self._mask_files[index] == MaskFile.MISSING:
            return Sample(name, image, label, partial(all_foreground, image))
        decode = partial(self._load_mask, index, size)
        # PNG masks of ImageNet's size take 0.34 ms to decode, a third of the JPEG's time.
        cache = self._mask_cache
        return Sample(name, image, label, partial(cache.mask, index, decode), partial(cache.rect, index, decode))

    def digests(self) -> dict[str, str]:
        """As `ImageDataset` says; of more than 20,000 files the sizes stand for the contents."""
        return self._digests

    @cached_property
    def _digests(self) -> dict[str, str]:
        if len(self) <= DIGESTED_WHOLE:
            return self._digests_of_files()
        # Asking for the sizes of two and a half million files takes minutes. They are kept for the next command, and
        # some are asked for again, since files that are written over in place change no folder.
        paths = [path for index in spread_evenly(len(self), _SIZES_AGAIN) for path in self._paths(int(index))]
        what = ("digests", self.has_masks, *map(size_of, paths))
        kept, _ = derived_arrays(self, what, lambda: _as_bytes(self._digests_of_files()))
        return {kind: values.tobytes().decode() for kind, values in kept.items()}

    def _digests_of_files(self) -> dict[str, str]:
        digests = {"images": digest_of_files(self.ids, self._image_path)}
        if self.has_masks:
            digests["masks"] = digest_of_files([mask_name(name) for name in self.ids], self._mask_path)
            digests["masks"] = digest_as_read(digests["masks"], self._mask_form)
        return digests

    def _paths(self, index: int) -> list[str]:
        return [self._image_path(index), *([self._mask_path(index)] if self.has_masks else [])]

    def _image_path(self, index: int) -> str:
        return f"{self._images}/{self.ids[index]}"

    def location_of(self, index: int) -> str:
        """Location of an image: the same in all splits that hold it."""
        return f"{self._resolved}/{self.ids[index]}"

    def size_of(self, index: int) -> int:
        """Size of an image's file in bytes; raises UnreadableImage."""
        try:
            return (self._images / self.ids[index]).stat().st_size
        except OSError as error:
            raise UnreadableImage(f"{self._image_path(index)}: {error.strerror}") from error

    def encoded(self, index: int) -> bytes:
        """Content of an image's file; raises UnreadableImage."""
        return read_file(self._image_path(index))

    def _load_mask(self, index: int, image_size: Size) -> Mask:
        path, image = self._mask_path(index), self._image_path(index)
        read_image = partial(read_file, image)
        how = self.resize, read_image, self._mask_form, self._least_side
        return decode_mask(read_file(path), path, image_size, image, *how)

    def _mask_path(self, index: int) -> str:
        return f"{self._masks}/{mask_file(self.ids[index], self._mask_files[index], self._mask_format.pattern)}"


def split_folder(root: Path, split: str, key: str) -> Path:
    """The folder of a split; raises UserError where there is none."""
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


def relabelled(
    folder: Path | str, labels: npt.NDArray[np.int64], own: Sequence[str], classes: Sequence[str]
) -> npt.NDArray[np.int64]:
    """Labels that index into `own` as such that do into `classes`; raises UserError for a class not among these."""
    if list(own) == list(classes):
        return labels
    numbers = {name: number for number, name in enumerate(classes)}
    for unknown in sorted(set(own) - numbers.keys()):
        raise UserError(f"{folder}/{unknown}: the training split has no such class; {nearest(unknown, classes)}")
    # Behind the last: where UNLABELLED, -1, leads.
    return np.array([*(numbers[name] for name in own), UNLABELLED], np.int64)[labels]


def digest_as_read(masks: str, form: MaskForm) -> str:
    """The digest of masks from that of their files, which may be read in several ways."""
    return masks if form == MaskForm() else digest([masks], [repr(form).encode()])


def all_foreground(image: Image) -> Mask:
    """The mask of an image that has none: any background augmentation leaves such an image as it is."""
    return np.full(image.shape[:2], 255, np.uint8)


def image_names(tree: Tree, files: Iterable[str]) -> list[str]:
    """The images among a tree's files.

    Raises:
        UserError: none is.
    """
    names = images_among(tree.uri, files)
    if not names:
        raise UserError(f"{tree.uri}: no such folder, or no images in it; name a folder with {' '.join(SUFFIXES)}")
    return names


def digest_of_files(names: Sequence[str], path_of: Callable[[int], str]) -> str:
    """As `ImageDataset.digests`; files that cannot be read count as empty."""
    if len(names) <= DIGESTED_WHOLE:
        return digest(names, (_content(path_of(index)) for index in range(len(names))))
    parts = (range(first, min(first + _PART, len(names))) for first in range(0, len(names), _PART))
    found = in_order(lambda part: [size_of(path_of(index)) for index in part], parts, _THREADS, _THREADS)
    return digest(names, (str(size).encode() for sizes in found for size in sizes))


def _as_bytes(digests: dict[str, str]) -> Arrays:
    return {kind: np.frombuffer(value.encode(), np.uint8) for kind, value in digests.items()}


def _content(path: str) -> bytes:
    try:
        return read_file(path)
    except UnreadableImage:
        return b""
