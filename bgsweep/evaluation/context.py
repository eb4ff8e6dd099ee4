"""One encoder, one suite file: what evaluators share, each made once and only if somebody asks for it."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from bgsweep.config import SuiteConfig
from bgsweep.data import UNLABELLED, Splits
from bgsweep.errors import UserError
from bgsweep.evaluation.datasets.background_variants import looked_at
from bgsweep.evaluation.datasets.imagenet import wnids
from bgsweep.evaluation.datasets.listing import Listing, See, squares
from bgsweep.evaluation.evaluators.linear import LinearHead, fit_linear
from bgsweep.evaluation.feature_cache import FeatureCache, PictureSet
from bgsweep.evaluation.features import Features, extract
from bgsweep.evaluation.frozen_model import FrozenModel, Head

Task = Callable[["EvalContext", Any], Any]
"""Work on one part of something by whoever has the same subject and sets."""
Workers = Callable[[Task, Iterable[Any]], Iterator[Any]]
"""Others who do a task on every part, each with an examination of its own; results come in the order of the parts."""

_PART = 1024  # pictures that a worker is given at a time


class EvalContext:
    """The subject with its sets.

    Args:
        splits: the user's labelled photographs; None where the config names none.
        workers: who sees the picture sets that are worth it (`config.workers.at_least`); None sees all of them here.
    """

    def __init__(
        self, model: FrozenModel, config: SuiteConfig, splits: Splits | None, workers: Workers | None = None
    ) -> None:
        self.model = model
        self.config = config
        self.splits = splits
        self._workers = workers
        self._kept: dict[Hashable, Any] = {}

    def shared_out(self, pictures: int) -> bool:
        """Whether so many pictures are seen by workers."""
        return self._workers is not None and pictures >= self.config.workers.at_least

    def each(self, task: Task, parts: Iterable[Any], pictures: int) -> Iterator[Any]:
        """The task's result for every part, in order; `pictures` is how many the parts have together."""
        if self._workers is not None and self.shared_out(pictures):
            return self._workers(task, parts)
        return (task(self, part) for part in parts)

    def slices(self, count: int, size: int = _PART, pictures: int | None = None) -> list[slice]:
        """The numbers 0 to `count` - 1 in parts for `each`; in one where all `pictures` (`count`) are seen here."""
        size = size if self.shared_out(count if pictures is None else pictures) else max(1, count)
        return [slice(first, min(first + size, count)) for first in range(0, count, size)]

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What was made under this key, made now if it is the first time."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    @cached_property
    def features(self) -> FeatureCache:
        """Features of the user's photographs.

        Raises:
            UserError: there are none, or some without classes.
        """
        if self.splits is None:
            raise UserError("data: no labelled photographs are named; set data.images (and data.masks)")
        for source in (self.splits.train, self.splits.test):
            if UNLABELLED in source.labels:
                raise UserError(f"{source.name}: accuracy needs classes; put the images into class folders")
        bench = FeatureCache(self.model.encode, self.splits, self.config.evaluate, self.config.size, "test")
        bench.elsewhere, bench.look = self._elsewhere, self.looked
        return bench

    def looked(self) -> dict[int, bool] | None:
        """What workers find of the test photographs' foregrounds; None where they are looked at here."""
        count = len(self.features.source)
        if not self.shared_out(count):
            return None
        found: dict[int, bool] = self.once("looked", lambda: _merged(self.each(_look, self.slices(count), count)))
        return found

    def _elsewhere(self, name: PictureSet, count: int) -> Features | None:
        if not self.shared_out(count):
            return None
        looked = None if name in ("train", "plain") else self.looked()
        found = list(self.each(partial(_see, name=name, looked=looked), self.slices(count), count))
        return Features(torch.cat([one.values for one in found]), torch.cat([one.labels for one in found]))

    @cached_property
    def linear(self) -> LinearHead:
        """The linear probe on the user's training photographs."""
        return fit_linear(self.features.train(), self.config.evaluate.linear, self.features.classes)

    @cached_property
    def test(self) -> Features:
        return self.features.variant("original")

    def check_classifier(self) -> None:
        """Refuse what has no way to ImageNet's classes.

        Raises:
            UserError: the encoder has no classifier of them, and the user's photographs are not ImageNet's.
        """
        if self.model.head is None and not (self.splits is not None and tuple(self.splits.train.classes) == wnids()):
            raise UserError(
                "this encoder has no classifier of ImageNet's 1000 classes; set data.images to ImageNet (train and "
                "validation, a folder a wnid), so that a linear probe can be trained"
            )

    @cached_property
    def classifier(self) -> tuple[Head, str]:
        """Logits of ImageNet's 1000 classes from features, and a word on where they come from."""
        self.check_classifier()
        if self.model.head is not None:
            return self.model.head, "the model's own"
        return self.linear.logits, f"linear probe on {self.features.splits.train.name}"

    def logits(self, listing: Listing, see: See | None = None, keep: bool = False) -> Tensor:
        """Logits (N, 1000) of listed pictures; kept for the next evaluator only where that is said."""
        found: Tensor = (
            self.once(listing.name, lambda: self._logits(listing, see)) if keep else self._logits(listing, see)
        )
        return found

    def _logits(self, listing: Listing, see: See | None) -> Tensor:
        head, _ = self.classifier
        parts = [listing[numbers] for numbers in self.slices(len(listing.paths))]
        task = partial(_see_listed, see=see or squares(self.config.pictures))
        with torch.no_grad():
            return torch.cat([head(features) for features in self.each(task, parts, len(listing.paths))])


def _see_listed(context: EvalContext, listing: Listing, see: See) -> Tensor:
    batches = listing.batches(see, context.config.evaluate.batch_size, context.config.threads)
    return torch.cat([context.model.encode(torch.from_numpy(images)) for images in batches])


def _see(context: EvalContext, numbers: slice, name: PictureSet, looked: Mapping[int, bool] | None) -> Features:
    context.features.look = lambda: looked
    return extract(context.model.encode, context.features.pictures(name, numbers))


def _look(context: EvalContext, numbers: slice) -> dict[int, bool]:
    source = context.features.source
    return looked_at(source, context.config.size, range(len(source))[numbers])


def _merged(parts: Iterable[Mapping[int, bool]]) -> dict[int, bool]:
    return {index: shows for part in parts for index, shows in part.items()}
