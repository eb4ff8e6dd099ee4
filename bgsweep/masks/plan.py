"""Missing and existing masks of a tree of images, and the manifest of the finished tree."""

import hashlib
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bgsweep.data.datasets.folder import image_names
from bgsweep.data.mask_kinds import HUGE, TINY
from bgsweep.data.missing_masks import check_stems, mask_name
from bgsweep.errors import UnreadableImage, UserError
from bgsweep.masks.generate import Outcome
from bgsweep.storage.tree import FileStat, Tree

MANIFEST = "masks.json"
# Masks are made in groups of so many images; a group with a missing mask is made again as a whole.
GROUP = 16
# Settings of manifests that do not name them.
_BEFORE = {"soft": True}


@dataclass(frozen=True)
class Plan:
    """Masks that are missing and masks that exist.

    Attributes:
        images: names of the images, sorted.
        passed_over: number of other files among them.
        missing: groups of images of which at least one needs a new mask.
        present: groups whose masks all exist.
        listing: digest over the names and sizes of all images and of their masks.
    """

    images: Sequence[str]
    passed_over: int
    missing: Sequence[Sequence[str]]
    present: Sequence[Sequence[str]]
    listing: str


def make_plan(images: Tree, masks: Tree, reviewed: Container[str] = ()) -> Plan:
    """Compare two trees. A mask older than its image counts as missing.

    Args:
        reviewed: masks that a person has dropped or replaced, which are neither made nor inspected.

    Raises:
        UserError: no images, or two that would share a mask.
    """
    stats = images.files()
    names = image_names(images, stats)
    check_stems(images.uri, names)
    found = masks.files()

    def fresh(name: str) -> bool:
        mask = found.get(mask_name(name))
        return mask is not None and mask.size > 0 and mask.changed >= stats[name].changed

    wanted = [name for name in names if mask_name(name) not in reviewed]
    groups = [wanted[first : first + GROUP] for first in range(0, len(wanted), GROUP)]
    missing = [group for group in groups if not all(map(fresh, group))]
    present = [group for group in groups if all(map(fresh, group))]
    return Plan(names, len(stats) - len(names), missing, present, listing(names, stats, found))


def listing(names: Iterable[str], images: Mapping[str, FileStat], masks: Mapping[str, FileStat]) -> str:
    """A digest of names and sizes, which shows in seconds whether images or masks have changed since."""
    total = hashlib.sha256()
    for name in names:
        mask = masks.get(mask_name(name))
        total.update(f"{name}\0{images[name].size}\0{mask.size if mask else -1}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def read_manifest(masks: Tree) -> dict[str, Any] | None:
    """The manifest of a tree of masks; None if it has none."""
    try:
        manifest = json.loads(masks.read(MANIFEST))
    except UnreadableImage:
        return None
    except ValueError as error:
        raise UserError(f"{masks.uri}/{MANIFEST}: damaged; remove it together with the masks") from error
    return manifest if isinstance(manifest, dict) else None


def write_manifest(masks: Tree, manifest: dict[str, Any]) -> None:
    """Write the manifest of a tree of masks."""
    masks.write(MANIFEST, json.dumps(manifest, indent=1).encode() + b"\n")


def record_reviewed(masks: Tree, dropped: Iterable[str], replaced: Iterable[str]) -> None:
    """Write into the manifest, if there is one, which masks a person has dropped or replaced."""
    if (manifest := read_manifest(masks)) is not None:
        before = manifest.get("reviewed", {})
        new = {*before.get("replaced", []), *replaced}
        gone = {*before.get("dropped", []), *dropped} - new
        write_manifest(masks, {**manifest, "reviewed": {"dropped": sorted(gone), "replaced": sorted(new)}})


def check_target(masks: Tree, manifest: dict[str, Any] | None, settings: dict[str, Any]) -> None:
    """Refuse to mix the masks of two methods, and to overwrite masks of unknown origin.

    A manifest without any mask, which an attempt that was refused leaves, is written over.
    """
    if manifest is None:
        if _has_masks(masks):
            raise UserError(f"{masks.uri}: contains PNG files that bgsweep has not made; name another folder by --out")
        return
    for key, value in settings.items():
        found = manifest.get(key, _BEFORE.get(key))
        if found != value:
            if not (manifest.get("complete") or manifest.get("reviewed") or _has_masks(masks)):
                return
            difference = f"{key} {found}, not {value}"
            if isinstance(found, dict) and isinstance(value, dict):
                changed = sorted(name for name in found.keys() | value.keys() if found.get(name) != value.get(name))
                difference = ", ".join(f"{name} {found.get(name)}, not {value.get(name)}" for name in changed)
            raise UserError(
                f"{masks.uri}: contains masks made with {difference}; name another folder by --out, or remove this one"
            )


def _has_masks(masks: Tree) -> bool:
    return any(name.endswith(".png") for name in masks.files())


def summary(plan: Plan, outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Manifest entries of a finished tree: counts, shares of suspicious foregrounds, digest, unreadable images."""
    ordered = sorted(outcomes, key=lambda outcome: outcome.image)
    made = [outcome for outcome in ordered if outcome.reason is None]
    lines = "".join(f"{mask_name(outcome.image)}\0{outcome.sha256}\n" for outcome in made)
    count = max(1, len(made))
    return {
        "images": len(plan.images),
        "masks": len(made),
        "passed_over": plan.passed_over,
        "unreadable": [{"image": o.image, "reason": o.reason} for o in ordered if o.reason is not None],
        "shares": {
            "empty": sum(outcome.area == 0 for outcome in made) / count,
            "tiny": sum(0 < outcome.area < TINY for outcome in made) / count,
            "huge": sum(outcome.area > HUGE for outcome in made) / count,
        },
        "digest": hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest(),
    }
