"""Images with boxes around their objects, in the layouts of PASCAL VOC and of COCO."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from bgsweep.errors import UserError


@dataclass(frozen=True)
class Annotated:
    """An image's file and its objects.

    Attributes:
        boxes: left, top, right, bottom in pixels (N, 4), the pixel at the right and bottom edge left out.
        labels: indices into the set's classes (N,).
        ignored: objects (N,) that are not trained on, and that a detector may find or not (VOC's difficult ones, COCO's
            crowds).
    """

    path: Path
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    ignored: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class BoxSet:
    """Annotated images in the order of their numbers or names."""

    name: str
    images: Sequence[Annotated]
    classes: tuple[str, ...]


def read_voc(root: Path, splits: Sequence[str], classes: tuple[str, ...] | None = None) -> BoxSet:
    """Splits such as `VOC2007/trainval` of ``YEAR/{JPEGImages,Annotations,ImageSets/Main}``.

    Args:
        classes: those of the training set; None takes the names in these splits, sorted.

    Raises:
        UserError: a file is missing or damaged, or names a class that is not known.
    """
    found = []
    for split in splits:
        year, _, part = split.partition("/")
        listing = root / year / "ImageSets" / "Main" / f"{part}.txt"
        for line in _text(listing).splitlines():
            name = line.split()[0]
            found.append((root / year / "JPEGImages" / f"{name}.jpg", _voc_objects(root, year, name)))
    names = classes or tuple(sorted({name for _, objects in found for name, *_ in objects}))
    numbers = {name: number for number, name in enumerate(names)}
    unknown = {name for _, objects in found for name, *_ in objects} - set(names)
    if unknown:
        raise UserError(
            f"{root}: {', '.join(splits)} has objects of {min(unknown)}, unknown to training; name one set's splits"
        )
    images = [
        _annotated(path, [(numbers[name], box, difficult) for name, box, difficult in objects])
        for path, objects in found
    ]
    return BoxSet(f"VOC {', '.join(splits)}", images, names)


def read_coco(root: Path, splits: Sequence[str]) -> BoxSet:
    """Splits such as `train2017`: ``SPLIT/*.jpg`` and ``annotations/instances_SPLIT.json``.

    Raises:
        UserError: a file is missing or damaged.
    """
    images: list[Annotated] = []
    names: tuple[str, ...] = ()
    for split in splits:
        path = root / "annotations" / f"instances_{split}.json"
        try:
            tree = json.loads(_text(path))
            categories = sorted(tree["categories"], key=lambda one: int(one["id"]))
            numbers = {one["id"]: number for number, one in enumerate(categories)}
            objects: dict[int, list[tuple[int, list[float], bool]]] = {one["id"]: [] for one in tree["images"]}
            for one in tree["annotations"]:
                left, top, width, height = one["bbox"]
                box = [left, top, left + width, top + height]
                objects[one["image_id"]].append((numbers[one["category_id"]], box, bool(one.get("iscrowd"))))
            files = {one["id"]: root / split / one["file_name"] for one in tree["images"]}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not COCO's instances ({error}); unpack the set again") from error
        names = tuple(one["name"] for one in categories)
        images += [_annotated(files[number], objects[number]) for number in sorted(files)]
    return BoxSet(f"COCO {', '.join(splits)}", images, names)


def _voc_objects(root: Path, year: str, name: str) -> list[tuple[str, list[float], bool]]:
    path = root / year / "Annotations" / f"{name}.xml"
    try:
        found = []
        for one in ElementTree.fromstring(_text(path)).iter("object"):
            left, top, right, bottom = (float(one.findtext(f"bndbox/{side}", "")) for side in _SIDES)
            # VOC counts pixels from one, and its right and bottom edges belong to the box.
            box = [left - 1, top - 1, right, bottom]
            found.append((one.findtext("name", ""), box, one.findtext("difficult") == "1"))
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{path}: not an annotation of PASCAL VOC ({error}); unpack the set again") from error
    return found


_SIDES = ("xmin", "ymin", "xmax", "ymax")


def _annotated(path: Path, objects: Sequence[tuple[int, list[float], bool]]) -> Annotated:
    boxes = np.array([box for _, box, _ in objects], np.float32).reshape(-1, 4)
    wide = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])  # COCO has a few boxes without any width
    labels = np.array([label for label, _, _ in objects], np.int64)
    ignored = np.array([ignored for *_, ignored in objects], bool)
    return Annotated(path, boxes[wide], labels[wide], ignored[wide])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read ({getattr(error, 'strerror', error)}); unpack the set whole"
        ) from error
