"""Features of the user's images: those of every set that an evaluator asks for, each computed once."""

import hashlib
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from itertools import islice
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bgsweep.config import Evaluate
from bgsweep.config.evaluation import Variant
from bgsweep.data import UNLABELLED, Image, ImageDataset, Splits
from bgsweep.data.datasets.wrappers import Subset
from bgsweep.data.readable import in_order
from bgsweep.errors import UserError
from bgsweep.evaluation.datasets.background_variants import VariantSet, centre_crops
from bgsweep.evaluation.features import Encode, Features, ImageBatches, extract
from bgsweep.evaluation.kept import KeptFeatures, key_of

EvaluatedSplit = Literal["validation", "test"]
ImageSet = Variant | Literal["train", "plain"]
"""The training images, the split's in a background variant, or as they are where there are no masks."""
# Decoded images of small sets are kept between the evaluations of a process, which see the same ones every time.
_KEPT_BYTES = 256_000_000
NO_PIXELS = {"images", "masks", "pack", "pack_cache_gb", "cache", "loader", "loader_workers", "loader_memory_gb"}
"""Settings of `data` on which no pixel depends, but through the images' and masks' digests."""
_FORMAT = 1  # of features on disk: raised when the same settings give other pixels
_KEPT_MADE_BYTES = 64_000_000  # of which there are several sets


class FeatureCache:
    """An encoder's features, shared by the evaluators of one call.

    The training features, that is kNN's bank and the linear probe's training set, are those of the training split as
    the run sees it (recomposed where there is a shortcut), without augmentation.

    Attributes:
        elsewhere: features of so many images of a set from workers; None where they are computed in this process.
        threads: threads that decode images ahead of the encoder; 0 decodes in this one.
        on_disk: this encoder's features of earlier calls.
        data: settings of `data` that change the images; part of the names of features on disk.
        look: what `looked_at` says of the split's images; None where this process finds it.
    """

    def __init__(self, encode: Encode, splits: Splits, settings: Evaluate, size: int, split: EvaluatedSplit) -> None:
        self.encode = encode
        self.splits = splits
        self.settings = settings
        self.size = size
        self.split = split
        self.threads = 0
        self.on_disk = KeptFeatures()
        self.data: Mapping[str, Any] | None = None
        self.source: ImageDataset = getattr(splits, split)
        self.elsewhere: Callable[[ImageSet, int], Features | None] = lambda name, count: None
        self.look: Callable[[], Mapping[int, bool] | None] = lambda: None
        self._features: dict[Hashable, Features] = {}

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.splits.train.classes)

    def train(self) -> Features:
        """Features of the training images."""
        return self._once("train")

    def of_train(self, part: Subset) -> Features:
        """Features of some of the training images: rows of all, where those are known and every image could be read."""
        whole = self._features.get(self._key("train"))
        if whole is None or len(whole) < len(part.dataset):
            seen = centre_crops(part, self.size, self.settings.batch_size, self.threads)
            return extract(self.encode, seen, len(part))
        return whole.part(torch.from_numpy(part.indices))

    def part_of_train(self, numbers: slice) -> Subset:
        """Some of the training images."""
        train = self.splits.train
        return Subset(train, np.arange(len(train))[numbers], train.name)

    def kept_of_train(self, how: str, make: Callable[[], Features]) -> Features:
        """Features of all training images, seen in another way, which is described; kept on disk."""
        if self.on_disk.folder is None:
            return make()
        key = key_of(of=identity(self.splits.train), data=self.data, how=how, format=_FORMAT)
        return self.on_disk.once(f"train-{key}", make)

    def image_numbers(self, variant: Variant) -> npt.NDArray[np.int64]:
        """Number of the image of each row of a variant's features; a mixed variant has `repeats` rows of each."""
        repeats = self.variants().repeats(variant) if self.source.has_masks else 1
        return np.arange(len(self.variant(variant).labels)) // repeats

    def protocol(self) -> dict[str, Any]:
        """Protocol of the images: which they are, and how they were preprocessed."""
        train, source = self.splits.train, self.source
        known = self._features.get(self._key("train"))
        halved = "" if known is None or known.scales is None else " (training images: kept as float16)"
        return {
            "features": f"encoder output, float32{halved}, eval mode",
            "preprocessing": f"shorter side {round(self.size * 8 / 7)} px (averaged over areas; bilinear where it "
            f"grows), centre square {self.size} px",
            "train": f"{train.name}: {len(train)} images, not augmented",
            "test": f"{source.name}: {len(source)} images",
        }

    def whole(self) -> Features:
        """Features of all of the split's images as they are."""
        return self._once("plain")

    def variant(self, name: Variant) -> Features:
        """Features of the split's images in one background variant; where there are masks, of those that show both."""
        if name != "original":
            return self._once(name)
        whole = self._once("plain")
        if not self.source.has_masks:
            return whole
        if len(whole) < len(self.source):  # some cannot be read, so that rows are no indices
            return self._once(name)
        key = (self._key(name), "rows of all")
        if key not in self._features:
            self._features[key] = whole.part(torch.tensor(self.variants().usable))
        return self._features[key]

    def batches(self, name: ImageSet, numbers: slice = slice(None)) -> ImageBatches:
        """Batches of a set's images, all or those of some numbers, with their labels."""
        if name != "train" and name != "plain":
            return self.variants().batches(name, numbers)
        source = self.splits.train if name == "train" else self.source
        part = Subset(source, np.arange(len(source))[numbers], source.name)
        return centre_crops(part, self.size, self.settings.batch_size, self.threads)

    def encoded(self, name: ImageSet, numbers: slice) -> Features:
        """Features of some of a set's images, encoded in this process."""
        count = numbers.stop - numbers.start
        if self._count(name) * self.size * self.size * 3 > _KEPT_BYTES:
            return extract(self.encode, self.batches(name, numbers), count)
        key = (self._key(name), self.size, numbers.start, numbers.stop)
        return extract(self.encode, self.kept(key, lambda: list(self.batches(name, numbers))), count)

    def made(self, key: Hashable, image: Callable[[int], Image], numbers: slice) -> Tensor:
        """Features of images that are made from their numbers, encoded in this process."""

        def batches() -> ImageBatches:
            every = in_order(image, range(numbers.start, numbers.stop), self.threads, self.settings.batch_size)
            while part := list(islice(every, self.settings.batch_size)):
                yield np.stack(part), np.full(len(part), UNLABELLED)

        count = numbers.stop - numbers.start
        if count * self.size * self.size * 3 > _KEPT_MADE_BYTES:
            return extract(self.encode, batches(), count).rows(slice(None))
        where = (key, self.split, self.settings.seed, self.size, numbers.start, numbers.stop)
        return extract(self.encode, self.kept(where, lambda: list(batches())), count).rows(slice(None))

    def _key(self, name: ImageSet) -> Hashable:
        if name == "train":
            return name, self.splits.train.name, len(self.splits.train)
        if name == "plain":
            return self.split, name
        return self.split, name, self.settings.repeats, self.settings.seed

    def variants(self) -> VariantSet:
        """The split in all background variants.

        Raises:
            UserError: it has no masks.
        """
        if not self.source.has_masks:
            raise UserError(f"{self.source.name}: background variants need foreground masks; set data.masks")

        def make() -> VariantSet:
            return VariantSet(
                self.source, self.splits.pools(self.split), self.settings, self.size, self.look(), self.threads
            )

        drawn = (self.settings.repeats, self.settings.seed, self.settings.batch_size)
        made: VariantSet = self.kept((self.split, drawn, self.size), make)
        return made

    def _count(self, name: ImageSet) -> int:
        if name == "train" or name == "plain":
            return len(self.splits.train if name == "train" else self.source)
        return self.variants().count(name)

    def _once(self, name: ImageSet) -> Features:
        key = self._key(name)
        if key not in self._features:
            file = "" if self.on_disk.folder is None else self._name_on_disk(name)
            self._features[key] = self.on_disk.once(file, partial(self._computed, name))
        return self._features[key]

    def _computed(self, name: ImageSet) -> Features:
        count = self._count(name)
        return self.elsewhere(name, count) or self.encoded(name, slice(0, count))

    def _name_on_disk(self, name: ImageSet) -> str:
        """A name that tells the set from all others: by images, masks, labels and all that changes the pixels."""
        used = [self.splits.train] if name == "train" else [self.source]
        if name != "train" and name != "plain" and self.splits.class_pools is not None:
            used.append(self.splits.train)
        of = [identity(each) for each in used]
        drawn = None if name in ("train", "plain") else [self.settings.repeats, self.settings.seed]
        return f"{name}-{key_of(of=of, size=self.size, drawn=drawn, data=self.data, format=_FORMAT)}"

    def kept(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value kept beside these splits under this key; the first call of this process makes it."""
        if key not in self.splits.kept:
            self.splits.kept[key] = make()
        return self.splits.kept[key]


def identity(dataset: ImageDataset) -> Any:
    """Digests of a dataset's images, masks and labels, as JSON."""
    return [dataset.digests(), list(dataset.classes), hashlib.sha256(np.asarray(dataset.labels).tobytes()).hexdigest()]
