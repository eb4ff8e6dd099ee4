"""An encoder on the bench: its features of every picture set that an evaluator asks for, each computed once."""

from collections.abc import Callable, Hashable
from typing import Any, Literal

from bgsweep.config import Evaluate
from bgsweep.config.evaluate import Variant
from bgsweep.data import Source, Splits
from bgsweep.errors import UserError
from bgsweep.evaluation.features import Encode, Features, Pictures, extract
from bgsweep.evaluation.variants import VariantSet, centre_pictures

SplitName = Literal["validation", "test"]
# Pictures of small sets are kept between the evaluations of a process, which see the same ones every time.
_KEPT_BYTES = 256_000_000


class Bench:
    """Shared by the evaluators of one call.

    The training features, that is kNN's bank and the linear probe's training set, are those of the training split as
    the run sees it (recomposed where there is a shortcut), without augmentation.
    """

    def __init__(self, encode: Encode, splits: Splits, settings: Evaluate, size: int, split: SplitName) -> None:
        self.encode = encode
        self.splits = splits
        self.settings = settings
        self.size = size
        self.split = split
        self.source: Source = getattr(splits, split)
        self._features: dict[Hashable, Features] = {}
        if not splits.train.classes:
            raise UserError(f"{splits.train.name}: photographs in class folders are needed to measure accuracy")

    @property
    def classes(self) -> int:
        return len(self.splits.train.classes)

    def train(self) -> Features:
        return self._once("train", len(self.splits.train), lambda: self._centres(self.splits.train))

    def variant(self, name: Variant) -> Features:
        """Features of the split's photographs in one background variant."""
        if name == "original" and not self.source.has_masks:
            return self._once((self.split, "plain"), len(self.source), lambda: self._centres(self.source))
        variants = self.variants()
        key = (self.split, name, self.settings.repeats, self.settings.seed)
        return self._once(key, variants.count(name), lambda: variants.pictures(name))

    def variants(self) -> VariantSet:
        """The split in all background variants.

        Raises:
            UserError: it has no masks.
        """
        if not self.source.has_masks:
            raise UserError(f"{self.source.name}: background variants need foreground masks; set data.masks")

        def make() -> VariantSet:
            return VariantSet(self.source, self.splits.pools(self.split), self.settings, self.size)

        made: VariantSet = self._kept((self.split, self.settings, self.size), make)
        return made

    def _centres(self, source: Source) -> Pictures:
        return centre_pictures(source, self.size, self.settings.batch_size)

    def _once(self, key: Hashable, count: int, pictures: Callable[[], Pictures]) -> Features:
        if key not in self._features:
            small = count * self.size * self.size * 3 <= _KEPT_BYTES
            batches = self._kept((key, self.size), lambda: list(pictures())) if small else pictures()
            self._features[key] = extract(self.encode, batches)
        return self._features[key]

    def _kept(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What was made of these splits under this key, made now if it is the first time in this process."""
        if key not in self.splits.kept:
            self.splits.kept[key] = make()
        return self.splits.kept[key]
