"""ImageNet's validation set and its relatives, each in its published layout and by its published protocol."""

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bgsweep.errors import UserError
from bgsweep.evaluation.classifier import classifier, known_labels, logits_of, require_classifier
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets.downloads import DOWNLOADS, path_of
from bgsweep.evaluation.datasets.imagenet import label_of, wnids
from bgsweep.evaluation.datasets.listing import (
    Listing,
    Squares,
    class_folders,
    images_in,
    in_folders,
    preprocessing_words,
)
from bgsweep.evaluation.evaluator import Evaluator, PerImageMetric, Yields, share, tops

VALIDATION_IMAGES = 50_000
_VALIDATION_NAME = re.compile(r"ILSVRC2012_val_(\d{8})$")
BORDER = 2  # pixels of red that mark ObjectNet's images as test data


def validation(context: EvalContext) -> Evaluator:
    """Top-1 and top-5 on ImageNet's validation set, which must lie in a folder a wnid."""
    require_classifier(context)
    listing = labelled_validation(context)

    def measure() -> Yields:
        yield from tops("imagenet", logits_of(context, listing, keep=True), torch.from_numpy(listing.labels))

    return _prepared(context, measure, listing, f"arg-max over {_count(context)} classes")


def labelled_validation(context: EvalContext) -> Listing:
    """ImageNet's validation set with its labels.

    Raises:
        UserError: it is missing, or not in class folders.
    """
    listing = _validation(context)
    if (listing.labels < 0).any():
        raise UserError(
            f"sets.imagenet_val: {context.config.sets.imagenet_val} has its images in one folder; sort them into one "
            "folder for each wnid, so that their classes are known"
        )
    return listing


def real(context: EvalContext) -> Evaluator:
    """ReaL (Beyer et al. 2020): a prediction is right if it is one of the reassessed labels.

    Images without any label are left out. An image is found in real.json by the number in its file's name, whatever
    folder it is in.
    """
    require_classifier(context)
    path = path_of(context.config.sets, "real")
    listing, labels = _validation(context), read_real(path)
    wanted = [labels[_number(path) - 1] for path in listing.paths]
    if (known := known_labels(context)) is not None:
        wanted = [[label for label in one if label in set(known.tolist())] for one in wanted]

    def measure() -> Yields:
        predicted = logits_of(context, listing, keep=True).argmax(dim=1).tolist()
        hits = [guess in right for guess, right in zip(predicted, wanted, strict=True)]
        yield PerImageMetric(
            "real_top1", np.array(hits, np.float64), np.array([bool(right) for right in wanted], np.float64)
        )

    none = sum(not one for one in wanted)
    how = f"arg-max over {_count(context)} classes is in the image's list; {none} images have none"
    return _prepared(context, measure, listing, how)


def subset(context: EvalContext, key: str) -> Evaluator:
    """ImageNet-A and -R (Hendrycks et al. 2021): the arg-max over the set's own 200 classes.

    Where the validation set lies in class folders too, also the accuracy on its images of the same classes, by the
    same rule: the two together show the drop.
    """
    require_classifier(context)
    root = path_of(context.config.sets, key)
    folders = class_folders(root, 200, DOWNLOADS[key].tree, _own_names(context))
    labels = _wnid_labels(folders)
    among = _among(context, labels, key)
    folders, labels = [folders[row] for row in among], [labels[row] for row in among]
    classes = torch.tensor(labels)
    listing = in_folders(key, folders, range(len(folders)))
    val = None if context.config.sets.imagenet_val is None else _validation(context)

    def measure() -> Yields:
        predicted = logits_of(context, listing)[:, classes].argmax(dim=1)
        yield share(f"{key}_top1", predicted == torch.from_numpy(listing.labels))
        if val is None or (val.labels < 0).any():
            return
        among = torch.isin(torch.from_numpy(val.labels), classes)
        predicted = classes[logits_of(context, val, keep=True)[among][:, classes].argmax(dim=1)]
        yield share(f"{key}_val_top1", predicted == torch.from_numpy(val.labels)[among])

    return _prepared(context, measure, listing, f"arg-max over {len(folders)} of the set's 200 classes")


def thousand(context: EvalContext, key: str) -> Evaluator:
    """ImageNet-V2 (folders 0 to 999, by number, not by name) and ImageNet-Sketch (folders by wnid)."""
    require_classifier(context)
    folders = class_folders(path_of(context.config.sets, key), 1000, DOWNLOADS[key].tree, _own_names(context))
    labels = _numbers(folders) if key == "imagenet_v2" else _wnid_labels(folders)
    among = _among(context, labels, key)
    listing = in_folders(key, [folders[row] for row in among], [labels[row] for row in among])

    def measure() -> Yields:
        yield from tops(key, logits_of(context, listing), torch.from_numpy(listing.labels))

    return _prepared(context, measure, listing, f"arg-max over {_count(context)} classes")


def objectnet(context: EvalContext) -> Evaluator:
    """ObjectNet (Barbu et al. 2019) on the classes that it shares with ImageNet, its red border cut off.

    `objectnet_top1`: the arg-max over its classes, each with the highest logit of ImageNet's classes mapped to it.
    `objectnet_1000way_top1`: the arg-max over all 1000 classes is one of those mapped to the image's.
    """
    require_classifier(context, whole=True)
    root = path_of(context.config.sets, "objectnet")
    mapped = objectnet_classes(root / "mappings")
    folders = [root / "images" / name for name in mapped]
    absent = [folder for folder in folders if not folder.is_dir()]
    if absent:
        raise UserError(f"{absent[0]}: no such folder, and {len(absent) - 1} others are missing; unpack the set whole")
    listing = in_folders("objectnet", folders, range(len(folders)))
    see = Squares(context.config.preprocessing, BORDER)

    def measure() -> Yields:
        logits = logits_of(context, listing, see)
        labels = torch.from_numpy(listing.labels)
        scores = torch.stack([logits[:, one].amax(dim=1) for one in mapped.values()], dim=1)
        yield share("objectnet_top1", scores.argmax(dim=1) == labels)
        member = torch.zeros(len(mapped), logits.shape[1], dtype=torch.bool)
        for row, one in enumerate(mapped.values()):
            member[row, one] = True
        yield share("objectnet_1000way_top1", member[labels, logits.argmax(dim=1)])

    how = f"{len(mapped)} classes; a class scores the highest logit mapped to it; {BORDER} px of border cut off"
    return _prepared(context, measure, listing, how)


def read_real(path: Path) -> list[list[int]]:
    """The reassessed labels of the validation images in the order of their numbers.

    Raises:
        UserError: the file is something else.
    """
    labels = _json(path)
    if not isinstance(labels, list) or len(labels) != VALIDATION_IMAGES:
        raise UserError(f"{path}: expected a list of {VALIDATION_IMAGES} lists of labels; take real.json as published")
    return labels


def objectnet_classes(folder: Path) -> dict[str, list[int]]:
    """ImageNet's classes of each ObjectNet folder that has any.

    Raises:
        UserError: one of the mapping files is missing or is something else.
    """
    names = {label: name for name, label in _json(folder / "folder_to_objectnet_label.json").items()}
    shared = _json(folder / "objectnet_to_imagenet_1k.json")
    label_of_line = {line: int(label) for label, line in _json(folder / "pytorch_to_imagenet_2012_id.json").items()}
    path = folder / "imagenet_to_label_2012_v2"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        label = {text.strip(): label_of_line[number] for number, text in enumerate(lines)}
        return {names[name]: [label[one.strip()] for one in classes.split(";")] for name, classes in shared.items()}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; unpack the set whole") from error
    except (KeyError, AttributeError) as error:
        raise UserError(f"{folder}: its files do not fit together ({error}); unpack the set again") from error


def _own_names(context: EvalContext) -> list[str]:
    """Names of class folders, of which a set may lack others; none where the classifier knows all classes."""
    known = known_labels(context)
    return [] if known is None else [name for label in known.tolist() for name in (wnids()[label], str(label))]


def _among(context: EvalContext, labels: Sequence[int], key: str) -> list[int]:
    """Numbers of the classes that the classifier knows.

    Raises:
        UserError: it knows none of them.
    """
    known = known_labels(context)
    found = [row for row, label in enumerate(labels) if known is None or label in known]
    if not found:
        raise UserError(f"sets.{key}: none of its classes is among those of data; leave this evaluator out")
    return found


def _count(context: EvalContext) -> int:
    known = known_labels(context)
    return len(wnids()) if known is None else len(known)


def _validation(context: EvalContext) -> Listing:
    """The validation set in a folder a wnid, of the classes that are known, or, with labels of -1, in one folder."""
    root = path_of(context.config.sets, "imagenet_val")
    if any(path.is_dir() for path in root.iterdir()):
        folders = class_folders(root, 1000, DOWNLOADS["imagenet_val"].tree, _own_names(context))
        labels = _wnid_labels(folders)
        among = _among(context, labels, "imagenet_val")
        return in_folders("imagenet_val", [folders[row] for row in among], [labels[row] for row in among])
    paths = images_in(root)
    if not paths:
        raise UserError(f"{root}: no images in it; expected: {DOWNLOADS['imagenet_val'].tree}")
    return Listing("imagenet_val", paths, np.full(len(paths), -1, np.int64))


def _number(path: Path) -> int:
    found = _VALIDATION_NAME.search(path.stem)
    if not found or not 1 <= int(found[1]) <= VALIDATION_IMAGES:
        raise UserError(f"{path}: ReaL is found by names like ILSVRC2012_val_00000001.JPEG; keep the original ones")
    return int(found[1])


def _wnid_labels(folders: Sequence[Path]) -> list[int]:
    known = label_of()
    for folder in folders:
        if folder.name not in known:
            raise UserError(f"{folder}: not a wnid of ImageNet's 1000 classes; class folders are named like n01440764")
    return [known[folder.name] for folder in folders]


def _numbers(folders: Sequence[Path]) -> list[int]:
    for folder in folders:
        if not folder.name.isdecimal() or int(folder.name) >= 1000:
            raise UserError(f"{folder}: class folders that are not called 0 to 999; unpack ImageNet-V2 again")
    return [int(folder.name) for folder in folders]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; unpack the set whole") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); download it again") from error


def _prepared(context: EvalContext, measure: Callable[[], Yields], listing: Listing, how: str) -> Evaluator:
    def protocol() -> dict[str, Any]:
        return {
            "preprocessing": f"{preprocessing_words(context.config.preprocessing)}, orientation tags passed over",
            "classifier": classifier(context)[1],
            "prediction": how,
            "images": len(listing.paths),
        }

    return Evaluator(measure, protocol, [listing])


EVALUATORS: dict[str, Callable[[EvalContext], Evaluator]] = {
    "imagenet": validation,
    "real": real,
    "imagenet_a": partial(subset, key="imagenet_a"),
    "imagenet_r": partial(subset, key="imagenet_r"),
    "imagenet_v2": partial(thousand, key="imagenet_v2"),
    "imagenet_sketch": partial(thousand, key="imagenet_sketch"),
    "objectnet": objectnet,
}
