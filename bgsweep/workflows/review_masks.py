"""`bgsweep masks show`, `review` and `drop`: suspicious masks, a page to mark bad ones on, and their removal."""

import contextlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bgsweep.config.columns import Columns
from bgsweep.data.datasets.formats import DEFAULT, open_images
from bgsweep.data.missing_masks import MOST_MISSING, mask_name
from bgsweep.errors import UnreadableImage, UserError
from bgsweep.images.decoding import read_gray
from bgsweep.masks.contact_sheet import contact_sheet, encode_sheet
from bgsweep.masks.marks import Marked, Review, check_same, digest, read_review
from bgsweep.masks.plan import record_reviewed
from bgsweep.masks.ranking import evenly_spaced, pairs_of, rank, read_pair
from bgsweep.masks.second import second_masks
from bgsweep.report.review_page import Item, review_page, thumbnail, thumbnail_side
from bgsweep.report.statistics import wilson
from bgsweep.storage.tree import Tree, open_tree, write_file
from bgsweep.storage.uri import is_remote, refuse_inside, shell_quoted
from bgsweep.workflows.make_masks import Meter


def show_masks(
    images: str,
    masks: str,
    out: Path,
    shown: int = 48,
    second: str = "u2netp",
    rated: int = 2000,
    columns: Columns = DEFAULT,
) -> dict[str, Any]:
    """Write a contact sheet of the most suspicious masks; gives what `contact_sheet` does."""
    source, target, compared = open_images(images, columns), open_tree(masks), second_masks(second)
    with Meter(rated) as meter:
        sheet, result = contact_sheet(source, target, shown, compared, rated, meter.advance)
    write_file(out, encode_sheet(sheet))
    return {"out": str(out), **result}


def review_masks(
    images: str,
    masks: str,
    out: Path,
    count: int = 150,
    sample: int = 60,
    second: str = "u2netp",
    rated: int = 2000,
    columns: Columns = DEFAULT,
) -> dict[str, Any]:
    """Write the page.

    Args:
        images: folder or URI, or files that list or hold images.
        masks: folder or URI.
        count: number of masks to show, the most suspicious of those that were rated.
        sample: number of masks to show that are drawn at random from all.
        second: as of `second_masks`.
        rated: number of masks to rate, evenly spaced.
        columns: names in the images' files.

    Raises:
        UserError: no image has a readable mask, or the page cannot be written.
    """
    source, target = open_images(images, columns), open_tree(masks)
    compared = second_masks(second)
    paired, without = pairs_of(source, target)
    drawn = random.Random(0).sample(paired, min(sample, len(paired)))
    names = sorted({*drawn, *evenly_spaced(paired, rated)})
    with Meter(len(names)) as meter:
        found = rank(source, target, names, compared.masks, meter.advance)
    reasons = {each.image: each.suspicion.reason for each in found.rated}
    listed = [each.image for each in found.rated[:count]]
    sampled = [name for name in drawn if name in reasons]
    chosen = [*sampled, *(name for name in listed if name not in set(sampled))]
    items = [
        Item(
            name, mask_name(name), str(digest(target, mask_name(name))), reasons[name], name in sampled, name in listed
        )
        for name in chosen
    ]
    side = thumbnail_side(len(chosen))
    thumbnails = [thumbnail(*read_pair(source, target, name), side) for name in chosen]
    about = {"second": compared.name, "looked_at": len(found.rated), "quoted": shell_quoted(masks)}
    page = review_page(items, thumbnails, masks, len(paired), about).encode("utf-8", "replace")
    write_file(out, page)
    return {
        "out": str(out),
        "masks": masks,
        "bytes": len(page),
        "images": len(paired),
        "looked_at": len(found.rated),
        "listed": len(listed),
        "sampled": len(sampled),
        "second": compared.name,
        "without_mask": without,
        "unreadable": found.unreadable,
    }


def drop_masks(masks: str, review: Path, replace: str | None = None, aside: str | None = None) -> dict[str, Any]:
    """Move the masks that were marked as bad out of their tree, or put those of another tree in their place.

    Nothing changes unless all of them can be moved. A second run of the same review changes nothing.

    Args:
        masks: folder or URI that was reviewed.
        review: the page's JSON.
        replace: folder or URI of other masks of the same images.
        aside: folder or URI to move the bad masks to; default: beside `masks`, with ``-dropped`` at its end.

    Raises:
        UserError: the masks are not those of the review, or one of them cannot be moved or replaced.
    """
    given, target = read_review(review), open_tree(masks)
    put_aside = aside or _beside(masks)
    refuse_inside(masks, put_aside, "--aside", "masks")
    shelf, other = open_tree(put_aside), None if replace is None else open_tree(replace)
    earlier = check_same(given, review, target, shelf)
    bad = [item for item in given.items if item.mark == "bad"]
    now = [item for item in bad if item.mask not in earlier]
    lying, present = shelf.files(), target.files()
    if clash := [item for item in now if item.mask in lying and digest(shelf, item.mask) != item.sha256]:
        raise UserError(f"{shelf.uri}/{clash[0].mask}: another mask lies there; name another folder by --aside")
    filled = [item.mask for item in bad if other and (item in now or item.mask not in present)]
    replacements = {name: _replacement(target if name in present else shelf, other, name) for name in filled if other}
    for name in (item.mask for item in now):
        shelf.write(name, target.read(name))
        if not other:
            target.remove(name)
    for name, data in replacements.items():
        target.write(name, data)
    record_reviewed(target, [item.mask for item in bad], filled)
    return {
        "masks": masks,
        "dropped": 0 if other else len(now),
        "replaced": len(filled),
        "earlier": len(bad) - max(len(now), len(filled)),
        "aside": shelf.uri,
        "good": sum(item.mark == "good" for item in given.items),
        "unmarked": sum(item.mark is None for item in given.items),
        "too_many": not other and len(bad) > MOST_MISSING * given.pairs,
        **estimates(given),
    }


def estimates(review: Review) -> dict[str, Any]:
    """The share of bad masks from those drawn at random: of all masks, and of those that were not listed; with 95 %."""
    sample = [item for item in review.items if item.sampled]
    marked = [item for item in sample if item.mark]
    return {
        "sample_unmarked": len(sample) - len(marked),
        "share": _estimate(marked, whole=len(marked) == review.pairs),
        "share_unlisted": _estimate([item for item in marked if not item.listed], whole=False),
    }


def _estimate(marked: Sequence[Marked], whole: bool) -> dict[str, Any] | None:
    if not marked:
        return None
    bad = sum(item.mark == "bad" for item in marked)
    share = bad / len(marked)
    lower, upper = (share, share) if whole else wilson(share, len(marked))
    return {"bad": bad, "marked": len(marked), "share": share, "lower": lower, "upper": upper}


def _beside(masks: str) -> str:
    """The default folder of masks that were put aside."""
    path, mark, query = masks.partition("?") if is_remote(masks) else (masks, "", "")
    return f"{path.rstrip('/')}-dropped{mark}{query}"


def _replacement(before: Tree, other: Tree, name: str) -> bytes:
    """Another tree's mask of this name; raises UserError unless it has the same size."""
    cure = "make the masks of all images there, or leave --replace out"
    try:
        data = other.read(name)
        new = read_gray(data, f"{other.uri}/{name}")
    except UnreadableImage as error:
        raise UserError(f"{error}; {cure}") from error
    with contextlib.suppress(UnreadableImage):  # a damaged mask is replaced by any that can be read
        old = read_gray(before.read(name), name)
        if new.shape != old.shape:
            sizes = " and ".join(f"{shape[1]}x{shape[0]}" for shape in (new.shape, old.shape))
            raise UserError(f"{other.uri}/{name} and the mask that it would replace differ in size: {sizes}; {cure}")
    return data
