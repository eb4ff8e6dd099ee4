"""The forms of files that images are read from besides folders and packs, and the listing of any of them."""

from functools import lru_cache, partial

from bgsweep.config.columns import Columns
from bgsweep.data.datasets.cifar import cifar_entries
from bgsweep.data.datasets.copied import CopiedImages, keep
from bgsweep.data.datasets.entries import Entries
from bgsweep.data.datasets.file_sets import FileSet, file_set
from bgsweep.data.datasets.hugging_face import hugging_face_entries
from bgsweep.data.datasets.listing import Listing, index_of, key_of, state_of
from bgsweep.data.datasets.listing_tree import ListingTree
from bgsweep.data.datasets.table_file import table_entries
from bgsweep.data.datasets.webdataset import webdataset_entries
from bgsweep.errors import UserError
from bgsweep.storage.tree import Tree, open_tree

DEFAULT = Columns()
_OF_TABLES = ("split", "root")


def open_listing(uri: str, columns: Columns = DEFAULT) -> Listing | None:
    """The images that files list or hold; None where `uri` is a folder of images, or is not there.

    Args:
        uri: a file, a pattern of several, or a folder of them.
        columns: names in them.

    Raises:
        UserError: the files cannot be used.
    """
    files = file_set(uri)
    if files is None:
        if columns != DEFAULT:
            raise UserError(f"data.columns: {uri} is a folder of images, which has none; leave it out")
        return None
    for key in _OF_TABLES:
        if files.kind != "table" and getattr(columns, key) is not None:
            raise UserError(f"data.columns.{key}: only CSV and JSONL files have it, not {uri}; leave it out")
    return _listing(files, columns, state_of(files, columns))


def open_images(uri: str, columns: Columns = DEFAULT) -> Tree:
    """The tree of the images at a folder or URI, or in files that list or hold them; raises UserError."""
    listing = open_listing(uri, columns)
    return open_tree(uri) if listing is None else ListingTree(listing)


@lru_cache(maxsize=8)
def _listing(files: FileSet, columns: Columns, state: tuple[object, ...]) -> Listing:
    copied = CopiedImages(key_of(state))
    listing = index_of(files, state, partial(_entries, files, columns, copied))
    if listing.copied and not keep(listing.copied):
        listing.forget()
        listing = index_of(files, state, partial(_entries, files, columns, copied))
    return listing


def _entries(files: FileSet, columns: Columns, copied: CopiedImages) -> Entries:
    forms = {
        "table": partial(table_entries, files, columns),
        "webdataset": partial(webdataset_entries, files, columns),
        "hugging_face": partial(hugging_face_entries, files, columns, copied),
        "cifar": partial(cifar_entries, files, columns, copied),
    }
    with copied.written():
        found = forms[files.kind]()
        images = list(found.images)
    return Entries(images, found.classes, copied.name)
