"""`bgsweep masks import`: masks in other forms as 8-bit PNGs named as their images; resumes after interruption."""

import struct
import zlib
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import cv2

from bgsweep.config.columns import Columns
from bgsweep.config.mask_format import OWN_ALPHA, MaskFormat, mask_source
from bgsweep.data.cores import usable_cores
from bgsweep.data.datasets.folder import image_names
from bgsweep.data.datasets.formats import DEFAULT, open_images
from bgsweep.data.mask_kinds import kind_of, shares
from bgsweep.data.missing_masks import check_stems, mask_name
from bgsweep.data.readable import in_order
from bgsweep.errors import UnreadableImage, UserError, WrongMask
from bgsweep.images.decoding import read_gray, scaled_mask, upright_mask, upright_size
from bgsweep.masks.plan import check_target, listing, read_manifest, write_manifest
from bgsweep.masks.sources import CocoMasks, Instances, MaskFiles, MaskSource
from bgsweep.storage.tree import FileStat, Tree, open_tree
from bgsweep.storage.uri import refuse_inside
from bgsweep.workflows.make_masks import Meter

_AHEAD = 64

# Texts in the file of a mask that was turned or scaled, so that a continued import counts them without reading their
# sources again.
_TURNED, _SCALED = b"bgsweep\0turned", b"bgsweep\0scaled"
_HEADER = 33  # bytes of a PNG before its first chunk that may be a text


class _Outcome(NamedTuple):
    """The result for an image's mask: its kind, whether it was turned or scaled, or why there is none."""

    image: str
    kind: str = ""
    turned: bool = False
    scaled: bool = False
    reason: str = ""
    new: bool = False


def import_masks(
    images: str,
    source: str,
    out: str,
    mask_format: MaskFormat,
    instances: Instances | None = None,
    categories: Sequence[str] = (),
    columns: Columns = DEFAULT,
) -> dict[str, Any]:
    """Write a tree of PNG masks that mirrors a tree of images, and ``masks.json`` beside it.

    Masks that exist are kept, unless their image or their source has changed since. A run that was killed and restarted
    writes the same bytes as an uninterrupted one.

    Args:
        images: folder or URI, or files that list or hold images.
        source: folder or URI of masks in another form, a COCO file (``.json``), or ``alpha``.
        out: folder or URI of the masks; not inside `images`.
        mask_format, instances: as of `MaskFiles`.
        categories: as of `CocoMasks`.
        columns: names in the images' files.

    Returns:
        The content of ``masks.json``, with `out` and `made` (number of masks written now).

    Raises:
        UserError: there are no masks, or one does not say what is foreground or has another size than its image.
    """
    refuse_inside(images, out)
    tree, target = open_images(images, columns), open_tree(out)
    there = tree.files()
    names = image_names(tree, there)
    check_stems(tree.uri, names)
    parameters = {"instances": instances or "union", "categories": list(categories)}
    settings: dict[str, Any] = {
        "method": "import",
        "source": source,
        "parameters": {**mask_format.model_dump(mode="json"), **parameters},
    }
    manifest = _earlier(target, settings)
    if reviewed := manifest.get("reviewed"):
        settings["reviewed"] = reviewed
    masks = _open(tree, images, source, names, mask_format, instances, categories)
    made = target.files()
    settled = {name for marked in manifest.get("reviewed", {}).values() for name in marked}
    wanted = [name for name in names if mask_name(name) not in settled]
    kept = {name for name in wanted if _is_fresh(name, there, made, masks)}
    if len(kept) == len(wanted) and manifest.get("listing") == listing(names, there, made):
        return {**manifest, "out": out, "made": 0}
    write_manifest(target, {**settings, "complete": False})
    outcomes = _fill(tree, masks, target, kept, wanted)
    summed = {"images": len(names), **_summary(outcomes)}
    _refuse_useless(summed, source, masks)
    manifest = {**settings, "complete": True, **summed, "listing": listing(names, there, target.files())}
    write_manifest(target, manifest)
    return {**manifest, "out": out, "made": sum(outcome.new for outcome in outcomes)}


def _earlier(target: Tree, settings: dict[str, Any]) -> dict[str, Any]:
    """The manifest of an earlier import, empty if there was none; raises UserError if it had other settings."""
    manifest = read_manifest(target) or {}
    check_target(target, manifest or None, settings)
    if manifest and not manifest.get("complete"):
        target.sweep()
    return manifest


def _refuse_useless(summed: Mapping[str, Any], source: str, masks: MaskSource) -> None:
    if not summed["masks"]:
        raise UserError(
            f"{source}: no image has a mask that can be read; correct --foreground, --categories or --pattern"
        )
    if summed["shares"]["empty"] == 1:
        raise UserError(f"{source}: every mask is empty; {masks.hint()}correct --foreground, --categories or --pattern")


def _open(
    tree: Tree,
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
        beside = open_tree(folder or ".")
        changed = beside.files().get(file, FileStat(0, 0.0)).changed
        return CocoMasks(beside.read(file), source, names, categories, instances, changed)
    if categories:
        raise UserError("--categories: only a COCO file has them; name one, or choose ids by --foreground")
    root, mask_format = mask_source(images, source, mask_format)
    return MaskFiles(tree if source == OWN_ALPHA else open_tree(root or source), names, mask_format, instances)


def _is_fresh(name: str, images: Mapping[str, FileStat], made: Mapping[str, FileStat], masks: MaskSource) -> bool:
    """True if an image's mask is there, and newer than image and source, or if it has no source."""
    mask, changed = made.get(mask_name(name)), masks.changed(name)
    return changed is None or (mask is not None and mask.changed >= max(changed, images[name].changed))


def _fill(images: Tree, masks: MaskSource, out: Tree, kept: Container[str], names: Sequence[str]) -> list[_Outcome]:
    """Write the masks that are not kept; raises WrongMask as `_import` does."""
    outcomes = []
    with Meter(len(names)) as meter:
        for outcome in in_order(partial(_finish, images, masks, out, kept), names, usable_cores(), _AHEAD):
            outcomes.append(outcome)
            meter.advance(1)
    return outcomes


def _finish(images: Tree, masks: MaskSource, out: Tree, kept: Container[str], name: str) -> _Outcome:
    """The result for one image, whose mask is written if it is not there; raises WrongMask as `_import` does."""
    if name not in kept or masks.changed(name) is None:
        return _import(images, masks, out, name)
    data = out.read(mask_name(name))
    try:
        mask = read_gray(data, name)
    except UnreadableImage:
        return _import(images, masks, out, name)
    return _Outcome(name, kind_of(mask), _TURNED in data, _SCALED in data)


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
    outcome = _Outcome(name, kind_of(fitted), upright is not mask, fitted is not upright, new=True)
    texts = [text for text, told in ((_TURNED, outcome.turned), (_SCALED, outcome.scaled)) if told]
    out.write(mask_name(name), _with_texts(cv2.imencode(".png", fitted)[1].tobytes(), texts))
    return outcome


def _with_texts(png: bytes, texts: Sequence[bytes]) -> bytes:
    """A PNG with texts, which decoders pass over, after its header."""
    bodies = [b"tEXt" + text for text in texts]
    chunks = [struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) for body in bodies]
    return b"".join((png[:_HEADER], *chunks, png[_HEADER:]))


def _summary(outcomes: Sequence[_Outcome]) -> dict[str, Any]:
    made = [outcome for outcome in outcomes if outcome.kind]
    without = [outcome.image for outcome in outcomes if not outcome.kind and not outcome.reason]
    kinds = Counter(outcome.kind for outcome in made)
    return {
        "masks": len(made),
        "without_mask": len(without),
        "first_without": without[0] if without else None,
        "unreadable": [{"image": each.image, "reason": each.reason} for each in outcomes if each.reason],
        "turned": sum(outcome.turned for outcome in made),
        "scaled": sum(outcome.scaled for outcome in made),
        "shares": shares(kinds),
    }
