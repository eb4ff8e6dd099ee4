"""Datasets made of another dataset: a part of it."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bgsweep.data.names import ChosenNames
from bgsweep.data.sample import ImageDataset, Sample
from bgsweep.errors import UserError
from bgsweep.seeding import Draw, rng_key
from bgsweep.storage.shared_arrays import LARGE, Arrays, index_folder, shared_arrays

REST = ", rest"


class Wrapper:
    """A dataset with the images of another one; subclasses change what they are like.

    `leaks` follows `dataset` down to the files.
    """

    def __init__(self, dataset: ImageDataset, name: str | None = None) -> None:
        self.dataset = dataset
        self.name = name or dataset.name
        self.classes = dataset.classes
        self.ids = dataset.ids
        self.labels = dataset.labels
        self.has_masks = dataset.has_masks
        self.identity: str | None = getattr(dataset, "identity", None)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[index]

    def digests(self) -> dict[str, str]:
        """Those of the wrapped dataset: whatever follows from the configuration is not digested."""
        return self.dataset.digests()


class Part(NamedTuple):
    """Some of a dataset's images: their indices and labels, and what tells them from others (None: nothing)."""

    indices: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    identity: str | None


class Subset(Wrapper):
    """Some of a dataset's images, in the order given."""

    def __init__(self, dataset: ImageDataset, part: "Part | npt.NDArray[np.int64]", name: str) -> None:
        super().__init__(dataset, name)
        if not isinstance(part, Part):
            part = Part(part, np.asarray(dataset.labels)[part], None)
        self.indices, self.labels, self.identity = part
        self.ids: Sequence[str] = ChosenNames(dataset.ids, self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[int(self.indices[index])]

    def digests(self) -> dict[str, str]:
        return self._digests

    @cached_property
    def _digests(self) -> dict[str, str]:
        ids = "\0".join(self.ids).encode("utf-8", "surrogateescape")
        whole = self.dataset.digests()
        return {kind: hashlib.sha256(digest.encode() + b"\0" + ids).hexdigest()[:16] for kind, digest in whole.items()}


def hold_out(dataset: ImageDataset, share: float, kind: Draw, seed: int, name: str) -> tuple[Subset, Subset]:
    """Split a dataset in two, holding out a share (0 to 1) of each class, at least one image.

    The choice depends on the images' ids, the seed and the kind of draw alone, so that all runs agree on it. One image
    of each class stays.

    Args:
        name: name of the held-out split in messages and records.

    Returns:
        The remaining images, and those held out.

    Raises:
        UserError: no class has more than one image.
    """
    whole = dataset.name.removesuffix(REST)
    choose = partial(_held_out, dataset, share, kind, seed, name)
    rest, held = divided(dataset, ("hold_out", share, int(kind), seed), choose)
    return Subset(dataset, rest, whole + REST), Subset(dataset, held, f"{whole}, held out for {name}")


def divided(
    dataset: ImageDataset, what: tuple[object, ...], choose: Callable[[], npt.NDArray[np.bool_]]
) -> tuple[Part, Part]:
    """The images of a dataset that are not chosen, and those that are; of a large one kept for other processes.

    Args:
        what: tells this choice from others of the same dataset.
        choose: gives True for the images chosen.
    """

    def make() -> Arrays:
        chosen, labels = choose(), np.asarray(dataset.labels)
        indices = {"rest": np.flatnonzero(~chosen), "chosen": np.flatnonzero(chosen)}
        return indices | {f"{half}_labels": labels[part] for half, part in indices.items()}

    found, mark = derived_arrays(dataset, what, make)
    rest, chosen = (
        Part(found[half], found[f"{half}_labels"], mark and f"{mark}/{half}") for half in ("rest", "chosen")
    )
    return rest, chosen


def derived_arrays(
    dataset: ImageDataset, what: tuple[object, ...], make: Callable[[], Arrays]
) -> tuple[Arrays, str | None]:
    """Arrays that follow from a dataset's files; of a large one they are made once on a machine.

    Returns:
        The arrays, and what tells them from others; None where they are not kept.
    """
    if len(dataset) <= LARGE:
        return make(), None
    whose: str | None = getattr(dataset, "identity", None)
    if whose is None:
        return shared_arrays(None, make), None
    mark = hashlib.sha256(repr((whose, *what)).encode()).hexdigest()[:16]
    return shared_arrays(index_folder() / f"{mark}.arrays", make), mark


def _held_out(dataset: ImageDataset, share: float, kind: Draw, seed: int, name: str) -> npt.NDArray[np.bool_]:
    """Those held out, by their keys: the first ones of each class."""
    keys = np.fromiter((rng_key(seed, 0, name, kind) for name in dataset.ids), np.uint64, len(dataset))
    # By class, and within a class by key. Both sorts keep the order of equals, as `sorted` does.
    order = np.argsort(keys, kind="stable")
    order = order[np.argsort(dataset.labels[order], kind="stable")]
    _, starts, sizes = np.unique(np.asarray(dataset.labels)[order], return_index=True, return_counts=True)
    held = np.zeros(len(dataset), np.bool_)
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        if size > 1:
            held[order[start : start + min(max(1, round(share * size)), size - 1)]] = True
    if not held.any():
        raise UserError(f"data.{name}: {dataset.name} has one image a class, so none can be held out; name a split")
    return held
