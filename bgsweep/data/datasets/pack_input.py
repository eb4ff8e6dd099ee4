"""The images that `bgsweep pack` packs, each with its mask: read from trees, or from files that list or hold them."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from bgsweep.config.columns import INCLUDED, Columns
from bgsweep.config.mask_format import MaskFormat, imported_first, mask_source
from bgsweep.data.datasets.folder import image_names
from bgsweep.data.datasets.formats import open_listing
from bgsweep.data.datasets.listed_masks import matched_places
from bgsweep.data.datasets.listing import Listing
from bgsweep.data.datasets.listing_tree import BY_NAME, ListingTree
from bgsweep.data.datasets.pack_size import PackSize
from bgsweep.data.mask_check import Pair, check_masks, form_of
from bgsweep.data.missing_masks import MaskFile, mask_file, match_masks
from bgsweep.data.sample import Mask
from bgsweep.errors import UnreadableImage, UserError, warn_once
from bgsweep.images.decoding import read_gray, scaled_mask, upright_mask, upright_size
from bgsweep.images.mask_form import MaskForm
from bgsweep.storage.tree import LocalTree, Tree, open_tree

# The index has 16 bits for each edge of a rectangle.
_LONGEST_SIDE = 65_535


class Entry(NamedTuple):
    """An image as it is packed, with its mask's file and its mask, which may be None: there is none, or unreadable.

    Attributes:
        name: of the image.
        image: content of its file; empty where it cannot be read.
        file: content of its mask's file.
        mask: of the upright image, 0 to 255.
        ending: suffix of the image as it is packed.
        label: class of the image; empty where it has none.
        shrunk: the image and the mask are smaller than their files'.
    """

    name: str
    image: bytes
    file: bytes | None
    mask: Mask | None
    ending: str
    label: str
    shrunk: bool = False


class PackInput:
    """All images below a folder, or of the files that list them, after `check_masks`.

    Args:
        images, masks, mask_format, columns: as of `make_pack`.

    Attributes:
        uri: where the images come from.
        listing: the files that list or hold the images, if any do.
        form: what the masks' pixels mean.
        names: of the images.
        mask_names: of their masks' files; None: the image has none.

    Raises:
        UserError: no images, an image without mask, or masks that are imported first.
    """

    def __init__(self, images: str, masks: str, mask_format: MaskFormat, columns: Columns) -> None:
        if found := imported_first(masks, mask_format.pattern):
            key, why = found
            raise UserError(f"{'masks' if key == 'masks' else '--pattern'}: {why}; see `bgsweep masks import --help`")
        sources = _sources(images, masks, mask_format, columns)
        self._images, self._masks, mask_format, self.listing = sources
        self.uri, self.form = self._images.uri, form_of(mask_format)
        self.names, self.mask_names = _names(sources)

    def entries(self, size: PackSize | None) -> Iterator[Entry]:
        """The images in the order of `names`, larger ones shrunk to a size if there is one."""
        for number, (name, mask_name) in enumerate(zip(self.names, self.mask_names, strict=True)):
            image = _content(self._images, name)
            file = None if mask_name is None else _content(self._masks, mask_name)
            label = _class_of(name) if self.listing is None else self.listing.class_of(number)
            mask = _mask(name, image, file, self.form)
            entry = Entry(name, image, file, mask, name.rpartition(".")[2].lower(), label)
            yield entry if size is None or not image else _shrunk(entry, size)


class _Sources(NamedTuple):
    """Trees of images and masks, the masks' format, and the files that list or hold the images, if any do."""

    images: Tree
    masks: Tree
    mask_format: MaskFormat
    listing: Listing | None


def _sources(images: str, masks: str, mask_format: MaskFormat, columns: Columns) -> _Sources:
    listing = open_listing(images, columns)
    root, mask_format = mask_source(images, masks, mask_format)
    if listing is None:
        if masks == INCLUDED:
            raise UserError(f"{images}: a folder of images, which includes no masks; name the folder of its masks")
        return _Sources(open_tree(images), open_tree(root or masks), mask_format, None)
    tree: Tree = ListingTree(listing)
    by_name = mask_format.model_copy(update=BY_NAME)
    if masks == INCLUDED:
        included = ListingTree(listing, listing.mask_at, uri=f"masks included in {images}")
        return _Sources(tree, included, by_name, listing)
    if root != images and (other := open_listing(masks)) is not None:
        matched = ListingTree(listing, matched_places(listing, other), other, masks)
        return _Sources(tree, matched, by_name, listing)
    return _Sources(tree, tree if root == images else open_tree(masks), mask_format, listing)


def _names(sources: _Sources) -> tuple[list[str], list[str | None]]:
    """Names of the images and their masks (None: it has none), after `check_masks`."""
    images, masks, mask_format, _ = sources
    names = image_names(images, images.files())
    found = match_masks(masks.uri, names, masks.files(), mask_format.pattern)
    files = [mask_file(name, kind, mask_format.pattern) for name, kind in zip(names, found, strict=True)]

    def pair(index: int) -> Pair:
        read = partial(images.read, names[index]), partial(masks.read, files[index])
        return Pair(f"{images.uri}/{names[index]}", f"{masks.uri}/{files[index]}", *read)

    check_masks(len(names), pair, isinstance(masks, LocalTree), form_of(mask_format))
    return names, [None if kind == MaskFile.MISSING else file for file, kind in zip(files, found, strict=True)]


def _mask(name: str, image: bytes, file: bytes | None, form: MaskForm) -> Mask | None:
    """The mask of the upright image; None where either cannot be read."""
    if not file or not image:
        return None
    try:
        mask = upright_mask(read_gray(file, f"mask of {name}", form), image)
        mask = scaled_mask(mask, f"mask of {name}", upright_size(image), name)
    except UnreadableImage as error:
        warn_once(f"{error}; the image is packed without its mask and passed over in training")
        return None
    if max(mask.shape) > _LONGEST_SIDE:
        raise UserError(f"{name}: its mask is longer than {_LONGEST_SIDE} pixels; remove or shrink both")
    return mask


def _shrunk(entry: Entry, size: PackSize) -> Entry:
    try:
        shrunk = size.shrink(entry.image, entry.mask, entry.name)
    except UnreadableImage as error:
        warn_once(f"{error}; it is packed as it is and passed over in training")
        return entry
    if shrunk is None:
        return entry
    return entry._replace(image=shrunk[0], mask=shrunk[1], ending="jpg", shrunk=True)


def _content(tree: Tree, name: str) -> bytes:
    """Content of a file; empty where it cannot be read."""
    try:
        return tree.read(name)
    except UnreadableImage as error:
        warn_once(f"{error}; it is packed as an empty file and passed over in training")
        return b""


def _class_of(name: str) -> str:
    """The folder that an image lies in: its class, unless there are folders below the class folders."""
    return name.rpartition("/")[0].rpartition("/")[2]
