"""A person's marks on masks: the JSON file that the review page writes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bgsweep.errors import UnreadableImage, UserError
from bgsweep.storage.tree import Tree

FORMAT = "bgsweep review of masks, 1"
"""What the file says it is; the page and its reader change together."""


class Marked(NamedTuple):
    """A mask that was on the page.

    Attributes:
        mask: name below the masks' root.
        sha256: of its file at that time.
        sampled: drawn at random from all masks.
        listed: among the most suspicious.
        mark: None if it was not marked.
    """

    mask: str
    sha256: str
    sampled: bool
    listed: bool
    mark: Literal["bad", "good"] | None


class Review(NamedTuple):
    """A review: the masks' folder or URI, the number of images that had a mask, and the masks on the page."""

    masks: str
    pairs: int
    items: Sequence[Marked]


def read_review(path: Path) -> Review:
    """Read the page's JSON.

    Raises:
        UserError: there is no such file, or it is not such a JSON.
    """
    wanted = 'name the JSON that the page of `bgsweep masks review` wrote ("download JSON")'
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {wanted}") from error
    except ValueError as error:
        raise UserError(f"{path}: no JSON; {wanted}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path}: not a review of masks; {wanted}")
    try:
        return Review(str(content["masks"]), int(content["pairs"]), [_marked(each) for each in content["items"]])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: a damaged review of masks ({error!r}); {wanted}") from error


def check_same(review: Review, path: Path, masks: Tree, aside: Tree) -> set[str]:
    """Make sure that the masks are those that were reviewed; gives those that an earlier run has put aside.

    Raises:
        UserError: some are missing or have changed since the review.
    """
    present, moved = masks.files(), aside.files()
    if not present:
        raise UserError(f"{masks.uri}: no such folder, or no masks in it; name the masks of {path} ({review.masks})")
    earlier, other = set(), []
    for item in review.items:
        if item.mask in present and digest(masks, item.mask) == item.sha256:
            continue
        if item.mark == "bad" and item.mask in moved and digest(aside, item.mask) == item.sha256:
            earlier.add(item.mask)
        else:
            other.append(item.mask)
    if other:
        raise UserError(
            f"{masks.uri}: {len(other)} of the {len(review.items)} masks of {path} are missing or have changed since "
            f"the review of {review.masks}, such as {other[0]}; name the masks that were reviewed, or review these"
        )
    return earlier


def digest(tree: Tree, name: str) -> str | None:
    """SHA-256 of a file; None if it cannot be read."""
    try:
        return hashlib.sha256(tree.read(name)).hexdigest()
    except UnreadableImage:
        return None


def _marked(item: Mapping[str, Any]) -> Marked:
    mark = item["mark"]
    if mark not in ("bad", "good", None):
        raise ValueError(f"mark {mark!r}")
    return Marked(str(item["mask"]), str(item["sha256"]), bool(item["sampled"]), bool(item["listed"]), mark)
