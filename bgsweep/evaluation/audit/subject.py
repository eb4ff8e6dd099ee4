"""An encoder under audit, with its images; features are kept on disk."""

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from bgsweep.config import SuiteConfig
from bgsweep.config.evaluation import Variant
from bgsweep.data import Image, Splits
from bgsweep.data.readable import in_order
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets.background_variants import VariantSet
from bgsweep.evaluation.evaluators.linear import linear_head
from bgsweep.evaluation.features import Features, extract
from bgsweep.evaluation.frozen_model import FrozenModel
from bgsweep.evaluation.kept import KeptFeatures
from bgsweep.seeding import Draw, rng_key

_BATCH = 32


def by_class(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """An order of images (N,) of which each beginning has nearly each class's share; of a class the earlier first."""
    place = np.empty(len(labels))
    for label in np.unique(labels):
        rows = np.where(labels == label)[0]
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.argsort(place, kind="stable")


class Subject:
    """An encoder and the images that it is audited on.

    A prediction is that of the linear probe where the images have classes. Without classes it is the nearest of the
    audited images as they are (cosine), so that "right" means: the image is found again.

    Args:
        splits: `train` trains the probe, `test` is audited.
        labelled: the images have classes; without, all are of one.
        part: number of images that measures with many versions of each image take; None: all.
        folder: for features; None keeps none.
    """

    def __init__(
        self,
        model: FrozenModel,
        config: SuiteConfig,
        splits: Splits,
        labelled: bool,
        part: int | None = 100,
        folder: Path | None = None,
        threads: int = 2,
    ) -> None:
        self.model, self.config, self.labelled, self._threads = model, config, labelled, threads
        self._kept = KeptFeatures(folder)
        self.context = EvalContext(model, config, splits, threads=threads, kept=self._kept)
        self._part = part

    @property
    def seed(self) -> int:
        """The seed of all draws."""
        return self.config.evaluate.seed

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return self.config.size

    @cached_property
    def variants(self) -> VariantSet:
        """The audited images in their background variants."""
        return self.context.features.variants()

    @property
    def usable(self) -> npt.NDArray[np.int64]:
        """Indices of the audited images that show foreground and background (N,)."""
        return np.asarray(self.variants.usable, np.int64)

    @cached_property
    def part(self) -> npt.NDArray[np.int64]:
        """Indices of the images for measures with many versions of each, of each class its share; one draw for all."""
        drawn = self.drawn(len(self.usable), "part")
        if self._part is None or self._part >= len(drawn):
            return self.usable
        return np.sort(drawn[by_class(np.asarray(self.variants.source.labels)[drawn])[: self._part]])

    def drawn(self, count: int, what: str) -> npt.NDArray[np.int64]:
        """Indices of at most so many of the usable images, in the order of their draws; the same for all encoders."""
        ids = self.variants.source.ids
        keys = [rng_key(self.seed, 0, f"{what}/{ids[index]}", Draw.AUDIT) for index in self.usable.tolist()]
        return self.usable[np.argsort(np.array(keys, np.uint64), kind="stable")[:count]]

    def labels(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Classes of audited images (N,); without classes their own positions among the usable ones."""
        if self.labelled:
            return np.asarray(self.variants.source.labels, np.int64)[indices]
        return np.searchsorted(self.usable, indices)

    def variant(self, name: Variant) -> Tensor:
        """Features of all usable images in a variant (N, D), in the order of `usable`."""
        return self.context.features.variant(name).values

    def originals(self, indices: npt.NDArray[np.int64]) -> Tensor:
        """Features of audited images as they are (N, D)."""
        return self.variant("original")[torch.from_numpy(np.searchsorted(self.usable, indices))]

    def encoded(self, name: str, make: Callable[[int], Image], count: int) -> Tensor:
        """Features (count, D) of images made from the numbers 0 to count - 1; kept under a name."""

        def compute() -> Features:
            made = in_order(make, range(count), self._threads, _BATCH)
            zeros = (islice(made, _BATCH) for _ in range(0, count, _BATCH))
            stacks = (np.stack(list(batch)) for batch in zeros)
            return extract(self.model.encode, ((each, np.zeros(len(each), np.int64)) for each in stacks), count)

        return self._kept.get(name, compute).values

    def predicted(self, features: Tensor) -> npt.NDArray[np.int64]:
        """Predictions (N,) from features (N, D), comparable with `labels`."""
        if self.labelled:
            return np.asarray(linear_head(self.context).predict(features))
        bank = F.normalize(self.variant("original"), dim=1)
        return np.asarray((F.normalize(features, dim=1) @ bank.t()).argmax(dim=1))

    def hits(self, features: Tensor, indices: npt.NDArray[np.int64] | Sequence[int]) -> npt.NDArray[np.float64]:
        """1 where versions (N, D) of audited images are predicted rightly, else 0."""
        right = self.predicted(features) == self.labels(np.asarray(indices, np.int64))
        return np.asarray(right, np.float64)

    @property
    def score(self) -> str:
        """The name of `hits` on the page."""
        return "accuracy" if self.labelled else "found again"
