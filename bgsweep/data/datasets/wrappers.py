"""Datasets made of another dataset: a part of it, or the same kept in memory."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bgsweep.data.names import Names
from bgsweep.data.sample import ImageDataset, Sample
from bgsweep.errors import UserError
from bgsweep.seeding import Draw, rng_key

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

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[index]

    def digests(self) -> dict[str, str]:
        """Those of the wrapped dataset: whatever follows from the configuration is not digested."""
        return self.dataset.digests()


class Subset(Wrapper):
    """Some of a dataset's images, in the order given."""

    def __init__(self, dataset: ImageDataset, indices: npt.NDArray[np.int64], name: str) -> None:
        super().__init__(dataset, name)
        self.indices = indices
        self.ids: Sequence[str] = Names(dataset.ids[index] for index in indices)
        self.labels = dataset.labels[indices]

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[int(self.indices[index])]

    def digests(self) -> dict[str, str]:
        ids = "\0".join(self.ids).encode("utf-8", "surrogateescape")
        whole = self.dataset.digests()
        return {kind: hashlib.sha256(digest.encode() + b"\0" + ids).hexdigest()[:16] for kind, digest in whole.items()}


class Cached(Wrapper):
    """A dataset that keeps its decoded samples in memory. A copy sent to another process starts empty."""

    def __init__(self, dataset: ImageDataset) -> None:
        super().__init__(dataset)
        self._samples: dict[int, Sample] = {}

    # Decoding the JPEG is 41 % of the time that a MoCo-v2 sample of ImageNet's size takes.
    def __getitem__(self, index: int) -> Sample:
        if index not in self._samples:
            sample = self.dataset[index]
            # Read-only, since a write would show in all later epochs.
            sample.image.flags.writeable = False
            self._samples[index] = sample
        return self._samples[index]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_samples": {}}


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
    # By a hash of each id: adding images to a folder hardly changes the choice among the others.
    shuffled = np.array(sorted(range(len(dataset)), key=lambda index: rng_key(seed, 0, dataset.ids[index], kind)))
    held = [
        members[: min(max(1, round(share * len(members))), len(members) - 1)]
        for label in np.unique(dataset.labels)
        if len(members := shuffled[dataset.labels[shuffled] == label]) > 1
    ]
    if not held:
        raise UserError(f"data.{name}: {dataset.name} has one image a class, so none can be held out; name a split")
    chosen = np.sort(np.concatenate(held))
    rest = np.setdiff1d(np.arange(len(dataset)), chosen)
    whole = dataset.name.removesuffix(REST)
    return Subset(dataset, rest, whole + REST), Subset(dataset, chosen, f"{whole}, held out for {name}")
