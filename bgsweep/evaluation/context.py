"""State that all evaluators of a call share: the model, its sets, and features, each computed at most once."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any, Protocol

import torch
from torch import Tensor

from bgsweep.config import SuiteConfig
from bgsweep.data import UNLABELLED, Image, Splits
from bgsweep.errors import UserError
from bgsweep.evaluation.datasets.background_variants import looked_at
from bgsweep.evaluation.evaluator import PerImageMetric, Yields
from bgsweep.evaluation.feature_cache import NO_PIXELS, EvaluatedSplit, FeatureCache, ImageSet
from bgsweep.evaluation.features import Features, joined
from bgsweep.evaluation.frozen_model import FrozenModel
from bgsweep.evaluation.kept import KeptFeatures
from bgsweep.evaluation.ranks import Ranks

Task = Callable[["EvalContext", Any], Any]
"""Work on one part of something, in a process that has the same model and sets."""


class Workers(Protocol):
    """Other processes, each with a context of its own."""

    @property
    def count(self) -> int:
        """The number of processes."""

    def __call__(self, task: Task, parts: Iterable[Any], /) -> Iterator[Any]:
        """The task's result for every part, in the parts' order."""


_PART = 1024  # images that a worker is given at a time


class EvalContext:
    """A model with the sets that it is evaluated on.

    Args:
        splits: the user's labelled images; None where the config names none.
        workers: encode sets of `config.workers.at_least` images or more; None encodes everything in this process.
        split: which of the user's splits is evaluated.
        ranks: evaluate everything together; each has a context of its own and runs the same evaluators.
        threads: threads that decode the user's images ahead of the encoder; 0 decodes in this one.
        kept: this model's features of earlier calls; None keeps none.
    """

    def __init__(
        self,
        model: FrozenModel,
        config: SuiteConfig,
        splits: Splits | None,
        workers: Workers | None = None,
        split: EvaluatedSplit = "test",
        ranks: Ranks | None = None,
        threads: int = 0,
        kept: KeptFeatures | None = None,
    ) -> None:
        self.model = model
        self.config = config
        self.splits = splits
        self.split: EvaluatedSplit = split
        self._workers = workers
        self._ranks = ranks
        self._threads = threads
        self.kept = kept or KeptFeatures()
        self._kept: dict[Hashable, Any] = {}

    def anew(self) -> "EvalContext":
        """The same context before it has computed anything."""
        return EvalContext(self.model, self.config, self.splits, self._workers, self.split, self._ranks, self._threads)

    def shared_out(self, images: int) -> bool:
        """True where a set of so many images is divided among ranks or workers."""
        return self._ranks is not None or (self._workers is not None and images >= self.config.workers.at_least)

    @property
    def processes(self) -> int:
        """The number of processes among which `each` divides a large set."""
        if self._ranks is not None:
            return self._ranks.size
        return 1 if self._workers is None else self._workers.count

    def each(self, task: Task, parts: Iterable[Any], images: int) -> Iterator[Any]:
        """The task's result for every part, in order; `images` is how many the parts have together."""
        if self._ranks is not None:
            return self._ranks.map(partial(task, self), parts)
        if self._workers is not None and self.shared_out(images):
            return self._workers(task, parts)
        return (task(self, part) for part in parts)

    def slices(self, count: int, size: int = _PART, images: int | None = None) -> list[slice]:
        """The numbers 0 to `count` - 1 in parts for `each`; in a single one where all `images` (`count`) stay here."""
        if self._ranks is not None:  # the same number of equal parts for each
            return even_parts(
                count, self._ranks.size * -(-count // (self._ranks.size * self.config.evaluate.batch_size))
            )
        size = size if self.shared_out(count if images is None else images) else max(1, count)
        return [slice(first, min(first + size, count)) for first in range(0, count, size)]

    def by_rank(self, task: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """The task's result for all rows; each rank computes it for some of them."""
        if self._ranks is None:
            return task(rows)
        return torch.cat(list(self._ranks.map(task, rows.tensor_split(self._ranks.size))))

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value kept under this key; the first call makes it."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    @cached_property
    def images(self) -> FeatureCache:
        """Features of the user's images, which need no classes.

        Raises:
            UserError: there are none.
        """
        if self.splits is None:
            raise UserError("data: no labelled images are named; set data.images (and data.masks)")
        cache = FeatureCache(self.model.encode, self.splits, self.config.evaluate, self.config.size, self.split)
        cache.threads, cache.on_disk = self._threads, self.kept
        cache.data = None if self.config.data is None else self.config.data.model_dump(mode="json", exclude=NO_PIXELS)
        cache.elsewhere, cache.look = self._elsewhere, self.looked
        return cache

    @cached_property
    def features(self) -> FeatureCache:
        """Features of the user's images, all of which have classes.

        Raises:
            UserError: there are none, or some without classes.
        """
        cache = self.images
        if not cache.splits.train.classes:
            raise UserError(f"{cache.splits.train.name}: accuracy needs classes; put the images into class folders")
        for source in (cache.splits.train, cache.source):
            if UNLABELLED in source.labels:
                raise UserError(f"{source.name}: accuracy needs classes; put the images into class folders")
        return cache

    def made(self, key: Hashable, count: int, image: Callable[[int], Image]) -> Tensor:
        """Features (count, D) of images that are made from their numbers; all ranks take part, if there are any.

        Args:
            key: tells them from other images of this context.
        """

        def encoded(numbers: slice) -> Tensor:
            return self.images.made(key, image, numbers)

        def features() -> Tensor:
            if self._ranks is None:
                return encoded(slice(0, count))
            parts = [part for part in self.slices(count) if part.stop > part.start]
            return torch.cat(list(self._ranks.map(encoded, parts)))

        found: Tensor = self.once(key, features)
        return found

    def check_images(self) -> None:
        """Require the user's labelled images, with masks where `evaluate.variant` needs them.

        Raises:
            UserError: as `features`, or there are no masks.
        """
        variant = self.config.evaluate.variant
        if not self.features.source.has_masks and variant != "original":
            raise UserError(f"evaluate.variant: {variant} needs foreground masks; set data.masks, or use original")

    @property
    def test(self) -> Features:
        """Features of the evaluated split in the configured variant (`evaluate.variant`); of the original, of all."""
        variant = self.config.evaluate.variant
        return self.features.whole() if variant == "original" else self.features.variant(variant)

    def by_image(self, metrics: Iterable[PerImageMetric]) -> Yields:
        """Metrics of `test` with one entry for each image, however many backgrounds it is seen on."""
        if self.config.evaluate.variant == "original":
            return iter(metrics)
        numbers = self.features.image_numbers(self.config.evaluate.variant)
        return (metric.by_image(numbers) for metric in metrics)

    def protocol(self) -> dict[str, Any]:
        """Protocol of the user's images: which they are, and how they were preprocessed."""
        variant, found = self.config.evaluate.variant, self.features.protocol()
        if variant != "original":
            found |= self.features.variants().protocol()
        return found | {"variant": variant, "images": len(self.test.labels), "seed": self.config.evaluate.seed}

    def looked(self) -> dict[int, bool] | None:
        """`looked_at` of the split, computed by workers; None where this process computes it."""
        count = len(self.images.source)
        if not self.shared_out(count):
            return None
        found: dict[int, bool] = self.once("looked", lambda: _merged(self.each(_look, self.slices(count), count)))
        return found

    def _elsewhere(self, name: ImageSet, count: int) -> Features | None:
        if not self.shared_out(count):
            return None
        looked = None if name in ("train", "plain") else self.looked()
        return joined(self.each(partial(_see, name=name, looked=looked), self.slices(count), count), count)


def even_parts(count: int, parts: int) -> list[slice]:
    """The numbers 0 to `count` - 1 in so many slices, whose sizes differ by one at most."""
    return [slice(number * count // parts, (number + 1) * count // parts) for number in range(parts)]


def _see(context: EvalContext, numbers: slice, name: ImageSet, looked: Mapping[int, bool] | None) -> Features:
    if looked is not None:
        context.images.look = lambda: looked
    return context.images.encoded(name, numbers)


def _look(context: EvalContext, numbers: slice) -> dict[int, bool]:
    source = context.images.source
    return looked_at(source, context.config.size, range(len(source))[numbers], context.images.threads)


def _merged(parts: Iterable[Mapping[int, bool]]) -> dict[int, bool]:
    return {index: shows for part in parts for index, shows in part.items()}
