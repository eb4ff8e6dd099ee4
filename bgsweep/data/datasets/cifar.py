"""CIFAR-10 and CIFAR-100 in the files of their authors, as torchvision downloads them: python's pickles.

They are read without executing anything in them. The pixels are copied as PNGs into the cache, once on a machine.
"""

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bgsweep.config.columns import Columns
from bgsweep.data.datasets.copied import CopiedImages
from bgsweep.data.datasets.entries import NONE, Entries, Entry, column
from bgsweep.data.datasets.file_sets import FileSet
from bgsweep.errors import UserError, one_line

_SIDE = 32
_NAMES = {"labels": "label_names", "fine_labels": "fine_label_names", "coarse_labels": "coarse_label_names"}


class _Arrays(pickle.Unpickler):
    """Reads pickled dictionaries of bytes, lists and numpy arrays, and refuses all else, which could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("numpy") and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if (module.startswith("numpy") and name == "_reconstruct") or (module, name) == ("_codecs", "encode"):
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"{module}.{name} is no part of CIFAR's files")


def cifar_entries(files: FileSet, columns: Columns, copied: CopiedImages) -> Entries:
    """The images of the batches, named by batch and number.

    Raises:
        UserError: a file is damaged or something else.
    """
    folder = files.files[0][1].parent
    about = folder / ("batches.meta" if (folder / "batches.meta").is_file() else "meta")
    names = _loaded(about)
    usual = [key for key, each in _NAMES.items() if each in names]
    label = column(columns.label, usual, usual, "label", str(about))
    classes = None if label in (None, NONE) else [name.decode() for name in names[_NAMES[str(label)]]]
    found = [entry for split, path in files.files for entry in _entries(split, path, label, classes, copied)]
    return Entries(found, classes)


def _entries(
    split: str, path: Path, label: str | None, classes: list[str] | None, copied: CopiedImages
) -> Iterator[Entry]:
    batch = _loaded(path)
    try:
        images = np.asarray(batch["data"], np.uint8).reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
        labels = (
            [None if classes is None else classes[number] for number in batch[label]] if label else [None] * len(images)
        )
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"{path}: not a batch of CIFAR ({one_line(error)}); copy it again") from error
    for index, (image, name) in enumerate(zip(images, labels, strict=True)):
        place = copied.add(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
        yield Entry(split, f"{path.name}_{index:05}.png", name, place, None, f"{path}, image {index}")


def _loaded(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            found = _Arrays(file, encoding="bytes").load()
        return {key.decode(): value for key, value in found.items()}
    except Exception as error:  # pickles raise anything
        raise UserError(f"{path}: not one of CIFAR's files, or damaged ({one_line(error)}); copy it again") from error
