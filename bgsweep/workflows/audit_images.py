"""The images of an audit: a seeded sample of a folder, with masks that are given or made."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from bgsweep.config import Data
from bgsweep.data import Image, ImageDataset, Sample, Splits
from bgsweep.data.datasets.folder import Folder
from bgsweep.data.datasets.wrappers import Wrapper, hold_out
from bgsweep.data.layout import split_folders
from bgsweep.errors import UserError
from bgsweep.seeding import Draw, rng_key
from bgsweep.workflows.make_masks import make_masks

LIMIT = 1000
_SHORTER, _KEPT_BYTES = 512, 1_000_000_000


@dataclass(frozen=True)
class AuditImages:
    """The sample of a folder, in two halves.

    Attributes:
        labelled: two or more classes have several images each.
        folder: where what belongs to these images and masks is kept.
        about: the record of the sample and of its masks, as JSON.
    """

    splits: Splits
    labelled: bool
    folder: Path
    about: dict[str, Any]


class _OneClass(Wrapper):
    """Images without classes, as of one."""

    def __init__(self, dataset: ImageDataset) -> None:
        super().__init__(dataset)
        self.classes, self.labels = ["image"], np.zeros(len(dataset), np.int64)


class _Kept(Wrapper):
    """Images with a shorter side of at most 512 px, decoded once for all their versions, up to a gigabyte of them."""

    def __init__(self, dataset: ImageDataset) -> None:
        super().__init__(dataset)
        self._samples: dict[int, Sample] = {}
        self._bytes = 0

    def __getitem__(self, index: int) -> Sample:
        if index in self._samples:
            return self._samples[index]
        sample = self.dataset[index]
        image, mask = (None if each is None else _shrunk(each) for each in (sample.image, sample.mask))
        assert image is not None, "a sample has an image"
        small = Sample(sample.id, image, sample.label, None if mask is None else lambda: mask)
        if self._bytes < _KEPT_BYTES:
            self._samples[index] = small
            self._bytes += image.nbytes
        return small


def _shrunk(image: Image) -> Image:
    scale = _SHORTER / min(image.shape[:2])
    if scale >= 1:
        return image
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def audit_images(images: Path, masks: Path | None, limit: int, seed: int, store: Path) -> AuditImages:
    """Draw a sample of a folder's images and split it: one part trains the probe, the other is audited.

    Folders named like splits (`train` and `val` or `test`) are taken as such; otherwise each class is halved.

    Args:
        images: class folders, or images without classes.
        masks: folder that mirrors `images`; None makes masks of the sample by U2-Net-P.
        limit: the largest number of images.
        store: folder; sample, masks and results are kept in its subfolder `audit`.

    Raises:
        UserError: no such folder, too few images, or wrong masks.
    """
    for folder, what in ((images, "the images"), (masks, "the masks")):
        if folder is not None and not folder.is_dir():
            raise UserError(f"{folder}: no such folder; name the folder of {what}")
    found = split_folders(Data(images=str(images)))
    parts = [found["train"], found["test"]] if {"train", "test"} <= found.keys() else ["."]
    wholes = [Folder(images, part) for part in parts]
    names = [_sampled(whole, limit // len(parts), seed) for whole in wholes]
    sample = _linked(images, parts, names, store / "audit")
    about: dict[str, Any] = {"folder": str(images), "found": sum(map(len, wholes)), "seed": seed}
    if masks is None:
        made = make_masks(str(sample / "images"), str(sample / "masks"))
        about["masks"] = f"made by U2-Net-P ({made['made']} now)"
        masks = sample / "masks"
    else:
        about["masks"] = str(masks)
    return _opened(sample, parts, masks, seed, about, store)


def _opened(sample: Path, parts: list[str], masks: Path, seed: int, about: dict[str, Any], store: Path) -> AuditImages:
    first, *rest = (Folder(sample / "images", part, masks) for part in parts)
    datasets: list[ImageDataset] = [first, *rest]
    counts = np.bincount(first.labels[first.labels >= 0], minlength=1)
    labelled = len(first.classes) > 1 and int((counts > 1).sum()) > 1
    if rest and labelled:
        datasets = [first, Folder(sample / "images", parts[1], masks, classes=first.classes)]
    if not labelled:
        several = "no two classes of the sample have several images" if len(first.classes) > 1 else ""
        about["unlabelled"] = several or "they are not in folders of several classes"
        datasets = [_OneClass(each) for each in datasets]
    if not rest:
        if len(first) < 4:
            raise UserError(
                f"{about['folder']}: {len(first)} images are too few to audit; name more, or a higher --limit"
            )
        datasets = list(hold_out(datasets[0], 0.5, Draw.AUDIT, seed, "audit"))
    train, test = datasets
    digests = {"train": train.digests(), "test": test.digests()}
    about |= {"classes": len(first.classes) if labelled else 0, "probe": len(train), "audited": len(test)}
    key = hashlib.sha256(repr((digests, labelled, seed)).encode()).hexdigest()[:16]
    kept = _Kept(test)
    return AuditImages(Splits(train, kept, kept), labelled, store / "audit" / key, about | {"digests": digests})


def _sampled(dataset: ImageDataset, limit: int, seed: int) -> list[str]:
    """Names of at most so many images, the same number of each class as far as they reach, in order."""
    keys = np.fromiter(
        (rng_key(seed, 0, f"sample/{name}", Draw.AUDIT) for name in dataset.ids), np.uint64, len(dataset)
    )
    order = np.argsort(keys, kind="stable")
    rank = _rank_in_class(np.asarray(dataset.labels)[order])
    chosen = np.sort(order[np.argsort(rank, kind="stable")[:limit]])
    return [dataset.ids[index] for index in chosen.tolist()]


def _rank_in_class(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The number of earlier entries of the same class, for each entry."""
    order = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - np.repeat(starts, counts)
    return rank


def _linked(images: Path, parts: Sequence[str], names: Sequence[Sequence[str]], folder: Path) -> Path:
    """A folder whose `images` has links to the files of the sample; named by these files, their sizes and times."""
    files = [
        (f"{part}/{name}", images / part / name) for part, chosen in zip(parts, names, strict=True) for name in chosen
    ]
    stats = [(name, *_stat(file)) for name, file in files]
    sample = folder / f"sample-{hashlib.sha256(repr((str(images.resolve()), stats)).encode()).hexdigest()[:16]}"
    for name, file in files:
        link = sample / "images" / name
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.resolve())
    return sample


def _stat(file: Path) -> tuple[int, int]:
    try:
        found = os.stat(file)  # noqa: PTH116 - one call for both
    except OSError:  # a link to nowhere, which is left out where images are read
        return 0, 0
    return found.st_size, found.st_mtime_ns
