"""Segments of annotation files: COCO's polygons and run lengths, SAM's automatic masks."""

import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import numpy as np

from bgsweep.errors import UserError, WrongMask, one_line
from bgsweep.images.compositing import Mask
from bgsweep.images.decoding import Size

_SIZED = ("size", "counts")


class CocoImage(NamedTuple):
    """An image of a COCO file: its size and its segmentations."""

    size: Size
    segments: list[Any]


def parsed(data: bytes, name: str) -> Any:
    """The content of a JSON file; raises UserError if it is damaged."""
    try:
        return json.loads(data)
    except ValueError as error:
        raise UserError(f"{name}: not JSON ({one_line(error)}); name a COCO file, or a folder of masks") from error


def coco_images(content: Any, name: str, categories: Sequence[str]) -> dict[str, CocoImage]:
    """The images of a COCO (or LVIS) file by their file names, each with its segments, crowds included.

    Args:
        content: the parsed file.
        name: the file, for errors.
        categories: names or ids of those whose segments are foreground; none: all.

    Raises:
        UserError: it is no COCO file, or has no such category.
    """
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        raise UserError(
            f"{name}: has no `images` and `annotations`, as COCO's files of instances do; name one that has"
        )
    wanted = _wanted(content.get("categories", []), name, categories)
    try:
        found = {
            each["id"]: (_path_of(each), CocoImage((each["height"], each["width"]), [])) for each in content["images"]
        }
        for each in content["annotations"]:
            if each["image_id"] in found and (wanted is None or each["category_id"] in wanted):
                found[each["image_id"]][1].segments.append(each["segmentation"])
    except KeyError as error:
        raise UserError(f"{name}: an image or annotation has no {error}, as COCO's files have; correct it") from error
    except (TypeError, AttributeError) as error:
        raise UserError(f"{name}: not as COCO's files of instances are ({one_line(error)}); correct it") from error
    return dict(found.values())


def _path_of(image: Mapping[str, Any]) -> str:
    """The path of an image's file; LVIS has an address in place of a name, and COCO's folder is the end of that."""
    if name := image.get("file_name"):
        return str(name)
    if "coco_url" not in image:
        raise KeyError("file_name")
    return urlsplit(str(image["coco_url"])).path.lstrip("/")


def _wanted(known: Sequence[Mapping[str, Any]], name: str, categories: Sequence[str]) -> set[int] | None:
    if not categories:
        return None
    ids = {str(each[key]): int(each["id"]) for each in known for key in ("id", "name")}
    if unknown := [each for each in categories if each not in ids]:
        names = ", ".join(str(each["name"]) for each in known[:12]) + (", …" if len(known) > 12 else "")
        raise UserError(f"--categories {unknown[0]}: {name} has no such category; it has: {names}")
    return {ids[each] for each in categories}


def sam_segments(content: Any, name: str) -> list[Any]:
    """The segments in one image's file of SAM's automatic masks, or of SA-1B.

    Raises:
        WrongMask: it is not such a file.
    """
    entries = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not all(isinstance(e, dict) and "segmentation" in e for e in entries):
        raise WrongMask(f"{name}: not a list of segments, as SAM's automatic masks are; correct --pattern")
    return [entry["segmentation"] for entry in entries]


def decode_segment(segment: Any, size: Size | None, name: str) -> Mask:
    """One segment as a mask, 0 or 255.

    Args:
        segment: polygons (lists of x, y, x, y, …), or run lengths with their size, compressed or not.
        size: height and width of the image; None: run lengths give their own.
        name: the file, for errors.

    Raises:
        WrongMask: it is neither, or has another size.
    """
    tools = _pycocotools()
    try:
        if isinstance(segment, dict):
            encoded = (
                segment if isinstance(segment["counts"], str | bytes) else tools.frPyObjects(segment, *segment["size"])
            )
        elif size is not None:
            outlines = [outline for outline in segment if len(outline) >= 6]
            if not outlines:  # points and lines, of which COCO has some
                return np.zeros(size, np.uint8)
            encoded = tools.merge(tools.frPyObjects(outlines, *size))
        else:
            raise ValueError("polygons without the image's size")
        mask = cast(Mask, np.asarray(tools.decode(encoded)) * np.uint8(255))
    except Exception as error:  # pycocotools raises nearly anything
        raise WrongMask(f"{name}: a segment cannot be read ({one_line(error)}); correct or remove it") from error
    if size is not None and mask.shape != size:
        raise WrongMask(
            f"{name}: a segment of {mask.shape[1]}x{mask.shape[0]} pixels for an image of {size[1]}x{size[0]}"
        )
    return mask


def _pycocotools() -> Any:
    try:
        return importlib.import_module("pycocotools.mask")
    except ImportError as error:
        raise UserError("polygons and run lengths need pycocotools: pip install 'bgsweep[masks]'") from error
