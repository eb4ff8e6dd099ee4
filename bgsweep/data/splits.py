"""From the configuration's `data` section to the sources that a run reads."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from bgsweep.config import Data
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.data.datasets.folder import Folder
from bgsweep.data.datasets.mask_noise import NoisyMasks
from bgsweep.data.datasets.pack import Pack
from bgsweep.data.datasets.shortcut import ClassPools, Recomposed
from bgsweep.data.datasets.wrappers import Cached, hold_out
from bgsweep.data.donors import BackgroundPools
from bgsweep.data.sample import Source
from bgsweep.errors import warn_once
from bgsweep.storage.uri import cached, is_remote

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Splits:
    """A run's photographs. With a shortcut `train` is recomposed, with mask noise its masks are spoilt.

    `validation` and `test` never are, nor are the masks that the shortcut's pools are made with.

    `kept` is for what others make of the photographs and want again, such as pictures to evaluate on.
    """

    train: Source
    validation: Source
    test: Source
    class_pools: ClassPools | None = None
    kept: dict[Hashable, Any] = field(default_factory=dict, repr=False)
    _pools: dict[SplitName, BackgroundPools] = field(default_factory=dict, repr=False)

    def pools(self, split: SplitName) -> BackgroundPools | None:
        """The backgrounds that a shortcut ties to each class, seen in this split; None without a shortcut."""
        if self.class_pools is None:
            return None
        if split == "train":
            return self.class_pools.train
        if split not in self._pools:
            self._pools[split] = self.class_pools.of(getattr(self, split))
        return self._pools[split]


def open_splits(data: Data) -> Splits:
    """Open what a configuration names; all trials of a process that read the same share one.

    Raises:
        UserError: one line that names what is missing, and where.
    """
    return _open(data.model_copy(update={"loader": "local", "loader_workers": None}))


@lru_cache(maxsize=4)
def _open(data: Data) -> Splits:
    train: Source = _source(data, data.train, None)
    if len(train.classes) == 1:
        warn_once(
            f"{train.name}: {train.classes[0]} is the only class, so that kNN and linear accuracy are 100 % for any "
            "encoder; put images into one folder a class, or judge by other metrics"
        )
    validation: Source
    if data.validation is None:
        train, validation = hold_out(train, data.holdout)
    else:
        validation = _source(data, data.validation, train.classes or None)
    validation = _kept(validation, data)
    test = validation if data.test is None else _kept(_source(data, data.test, train.classes or None), data)
    if data.shortcut is None:
        return Splits(_kept(_spoilt(train, data), data), validation, test)
    pools = ClassPools(train, data.shortcut.seed)
    recomposed = Recomposed(train, pools.train, data.shortcut)
    return Splits(_kept(_spoilt(recomposed, data), data), validation, test, pools)


def _source(data: Data, split: str, classes: Sequence[str] | None) -> Source:
    if data.pack is not None:
        return Pack(data.pack, split, data.resize, classes, data.fast_jpeg, data.pack_cache_gb)
    if data.images == "sample":
        return EmbeddedSample(split, data.resize, data.fast_jpeg)
    masks = None if data.masks is None else _here(data.masks, split, "data.masks")
    return Folder(_here(data.images, split, "data.images"), split, masks, data.resize, classes, data.fast_jpeg)


def _here(root: str, split: str, key: str) -> Path:
    return cached(root, split, key) if is_remote(root) else Path(root).expanduser()


def _spoilt(source: Source, data: Data) -> Source:
    return NoisyMasks(source, data.mask_noise) if data.mask_noise.active else source


def _kept(source: Source, data: Data) -> Source:
    return Cached(source) if data.cache else source
