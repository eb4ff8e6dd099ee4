"""Sources made of another source: a part of it, or the same kept in memory."""

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


class Subset:
    """Some of a source's photographs, in the order given."""

    def __init__(self, source: ImageDataset, indices: npt.NDArray[np.int64], name: str) -> None:
        self.source = source
        self.indices = indices
        self.name = name
        self.classes = source.classes
        self.ids: Sequence[str] = Names(source.ids[index] for index in indices)
        self.labels = source.labels[indices]
        self.has_masks = source.has_masks

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.source[int(self.indices[index])]

    def digests(self) -> dict[str, str]:
        ids = "\0".join(self.ids).encode("utf-8", "surrogateescape")
        whole = self.source.digests()
        return {kind: hashlib.sha256(digest.encode() + b"\0" + ids).hexdigest()[:16] for kind, digest in whole.items()}


class Cached:
    """A source that keeps what it has decoded. A copy sent to another process starts empty."""

    def __init__(self, source: ImageDataset) -> None:
        self.source = source
        self.name = source.name
        self.classes = source.classes
        self.ids = source.ids
        self.labels = source.labels
        self.has_masks = source.has_masks
        self._samples: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        if index not in self._samples:
            sample = self.source[index]
            sample.image.flags.writeable = False
            self._samples[index] = sample
        return self._samples[index]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_samples": {}}

    def digests(self) -> dict[str, str]:
        return self.source.digests()


def hold_out(source: ImageDataset, share: float, kind: Draw, seed: int, name: str) -> tuple[Subset, Subset]:
    """Divide a source into what stays and what is held out: a share (0 to 1) of each class, at least one image.

    Which images are held out depends on their ids, the seed and the kind of draw alone, so that all runs agree on it.
    One image of each class stays.

    Args:
        name: of the split that they are held out for, in messages and records.

    Raises:
        UserError: no class has more than one image.
    """
    shuffled = np.array(sorted(range(len(source)), key=lambda index: rng_key(seed, 0, source.ids[index], kind)))
    held = [
        members[: min(max(1, round(share * len(members))), len(members) - 1)]
        for label in np.unique(source.labels)
        if len(members := shuffled[source.labels[shuffled] == label]) > 1
    ]
    if not held:
        raise UserError(f"data.{name}: {source.name} has one image a class, so none can be held out; name a split")
    chosen = np.sort(np.concatenate(held))
    rest = np.setdiff1d(np.arange(len(source)), chosen)
    whole = source.name.removesuffix(REST)
    return Subset(source, rest, whole + REST), Subset(source, chosen, f"{whole}, held out for {name}")
