"""`bgsweep masks import`: masks in other forms as 8-bit PNGs named as their images."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import cv2

from bgsweep.config.mask_format import MaskFormat, mask_source
from bgsweep.data.cores import usable_cores
from bgsweep.data.datasets.folder import image_names
from bgsweep.data.datasets.formats import open_images
from bgsweep.data.mask_kinds import kind_of, shares
from bgsweep.data.missing_masks import check_stems, mask_name
from bgsweep.data.readable import in_order
from bgsweep.errors import UnreadableImage, UserError, WrongMask
from bgsweep.images.decoding import scaled_mask, upright_mask, upright_size
from bgsweep.masks.plan import check_target, read_manifest, write_manifest
from bgsweep.masks.sources import CocoMasks, Instances, MaskFiles, MaskSource
from bgsweep.storage.tree import Tree, open_tree
from bgsweep.storage.uri import refuse_inside
from bgsweep.workflows.make_masks import Meter

_AHEAD = 64


class _Outcome(NamedTuple):
    """The result for an image's mask: its kind, whether it was turned or scaled, or why there is none."""

    image: str
    kind: str = ""
    turned: bool = False
    scaled: bool = False
    reason: str = ""


def import_masks(
    images: str,
    source: str,
    out: str,
    mask_format: MaskFormat,
    instances: Instances | None = None,
    categories: Sequence[str] = (),
) -> dict[str, Any]:
    """Write a tree of PNG masks that mirrors a tree of images, and ``masks.json`` beside it.

    Args:
        images: folder or URI.
        source: folder or URI of masks in another form, a COCO file (``.json``), or ``alpha``.
        out: folder or URI of the masks; not inside `images`.
        mask_format, instances: as of `MaskFiles`.
        categories: as of `CocoMasks`.

    Returns:
        The content of ``masks.json``, with `out`.

    Raises:
        UserError: there are no masks, or one does not say what is foreground or has another size than its image.
    """
    refuse_inside(images, out)
    tree, target = open_images(images), open_tree(out)
    names = image_names(tree, tree.files())
    check_stems(tree.uri, names)
    settings: dict[str, Any] = {
        "method": "import",
        "source": source,
        "parameters": {
            **mask_format.model_dump(mode="json"),
            "instances": instances or "union",
            "categories": list(categories),
        },
    }
    check_target(target, read_manifest(target), settings)
    masks = _open(images, source, names, mask_format, instances, categories)
    write_manifest(target, {**settings, "complete": False})
    outcomes = []
    with Meter(len(names)) as meter:
        for outcome in in_order(partial(_import, tree, masks, target), names, usable_cores(), _AHEAD):
            outcomes.append(outcome)
            meter.advance(1)
    summed = _summary(outcomes)
    if not summed["masks"] or summed["shares"]["empty"] == 1:
        what = "no image has a mask that can be read" if not summed["masks"] else "every mask is empty"
        hint = masks.hint() if summed["masks"] else ""
        raise UserError(f"{source}: {what}; {hint}correct --foreground, --categories or --pattern")
    manifest = {**settings, "complete": True, **summed}
    write_manifest(target, manifest)
    return {**manifest, "out": out}


def _open(
    images: str,
    source: str,
    names: Sequence[str],
    mask_format: MaskFormat,
    instances: Instances | None,
    categories: Sequence[str],
) -> MaskSource:
    if source.lower().endswith(".json"):
        if mask_format != MaskFormat():
            raise UserError(
                f"{source}: of a COCO file, foreground is chosen by --categories; leave out the other options"
            )
        folder, _, file = source.rpartition("/")
        return CocoMasks(open_tree(folder or ".").read(file), source, names, categories, instances)
    if categories:
        raise UserError("--categories: only a COCO file has them; name one, or choose ids by --foreground")
    root, mask_format = mask_source(images, source, mask_format)
    return MaskFiles(open_tree(root or source), names, mask_format, instances)


def _import(images: Tree, masks: MaskSource, out: Tree, name: str) -> _Outcome:
    """Write one image's mask, if there is one.

    Raises:
        WrongMask: it does not say what is foreground, or has another size.
    """
    try:
        if (mask := masks.mask_of(name)) is None:
            return _Outcome(name)
        image = images.read(name)
        upright = upright_mask(mask, image)
        fitted = scaled_mask(upright, f"mask of {name}", upright_size(image), f"{images.uri}/{name}")
    except WrongMask:
        raise
    except UnreadableImage as error:
        return _Outcome(name, reason=str(error))
    out.write(mask_name(name), cv2.imencode(".png", fitted)[1].tobytes())
    return _Outcome(name, kind_of(fitted), upright is not mask, fitted is not upright)


def _summary(outcomes: Sequence[_Outcome]) -> dict[str, Any]:
    made = [outcome for outcome in outcomes if outcome.kind]
    without = [outcome.image for outcome in outcomes if not outcome.kind and not outcome.reason]
    kinds = Counter(outcome.kind for outcome in made)
    return {
        "images": len(outcomes),
        "masks": len(made),
        "without_mask": len(without),
        "first_without": without[0] if without else None,
        "unreadable": [{"image": each.image, "reason": each.reason} for each in outcomes if each.reason],
        "turned": sum(outcome.turned for outcome in made),
        "scaled": sum(outcome.scaled for outcome in made),
        "shares": shares(kinds),
    }
