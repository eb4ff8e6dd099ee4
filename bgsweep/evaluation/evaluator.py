"""The protocol of evaluators: a function opens what it needs and returns an `Evaluator`, which yields named values.

    def my_evaluator(context: EvalContext) -> Evaluator:
        images = ...                    # open: check everything, raise UserError for what is missing; compute nothing
        def measure() -> Yields:
            yield share("top1", ...)    # measure: may take hours
        return Evaluator(measure, lambda: {"preprocessing": ...})

    EVALUATORS = {"my_evaluator": my_evaluator}

All evaluators of a call are opened before the first one measures, so that a missing file is reported before hours of
work. To add one: a file in `evaluators/`, and its `EVALUATORS` in `registry.EVALUATORS`; or, in a package of one's own,
an `EvaluatorClass`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from bgsweep.config.base import Section

if TYPE_CHECKING:  # a report computes intervals without torch, which takes seconds to import
    from torch import Tensor

    from bgsweep.evaluation.context import EvalContext
    from bgsweep.evaluation.datasets.listing import Listing


@dataclass(frozen=True)
class PerImageMetric:
    """A named value with each image's part in it: the sum of `hits` over the sum of `counted`.

    For an accuracy the hits are 1 where the prediction is right, and all count 1. Two encoders' metrics of the same
    name are of the same images in the same order, so that `bootstrap.paired` can compare them image by image.
    """

    name: str
    hits: npt.NDArray[np.float64]
    counted: npt.NDArray[np.float64]

    @property
    def value(self) -> float:
        """NaN where nothing counts."""
        total = float(self.counted.sum())
        return float(self.hits.sum()) / total if total else float("nan")

    def minus(self, other: "PerImageMetric", name: str) -> "PerImageMetric":
        """The difference of two accuracies on the same images."""
        return PerImageMetric(name, self.hits - other.hits, self.counted)

    def by_image(self, images: npt.NDArray[Any]) -> "PerImageMetric":
        """The same value with one entry for each image, of which there may be several versions.

        Several backgrounds of one foreground, or corruptions of one image, are not independent: a bootstrap draws them
        together or not at all. Drawn one by one, they would count as more evidence than they are.

        Args:
            images: number of the image that each version (N,) is made of.
        """
        rows = np.unique(images, return_inverse=True)[1]
        sums = (np.asarray(np.bincount(rows, part), np.float64) for part in (self.hits, self.counted))
        return PerImageMetric(self.name, *sums)


Yields = Iterator[PerImageMetric]


@dataclass(frozen=True)
class Result:
    """One evaluator's values, in their order, the protocol that they were measured by, and `Evaluator.listings`.

    Attributes:
        at: when measuring ended, in milliseconds of Unix time.
    """

    evaluator: str
    values: tuple[PerImageMetric, ...]
    protocol: dict[str, Any]
    listings: "Sequence[Listing]" = ()
    at: int = 0


@dataclass(frozen=True)
class Evaluator:
    """An opened evaluator.

    Attributes:
        measure: yields the values.
        protocol: how they were measured, as JSON; called after `measure`, since it also tells what measuring chose.
        listings: the published images that the values are of; empty where they are the user's own.
    """

    measure: Callable[[], Yields]
    protocol: Callable[[], dict[str, Any]]
    listings: "Sequence[Listing]" = ()

    def run(self, name: str) -> Result:
        """Measure, under the evaluator's name."""
        values = tuple(self.measure())
        return Result(name, values, self.protocol(), self.listings, int(time() * 1000))


class EvaluatorClass(ABC):
    """An evaluator of another package.

    It is named in `--suite`: by its path, ``package.module:Class``, or by an entry point of the group
    ``bgsweep.evaluators``. Its `Settings` check its section under `plugins:` in the suite's YAML file.

    `__init__` opens what the evaluator needs, and raises `UserError` for what is missing; it computes nothing.
    """

    Settings: ClassVar[type[Section]] = Section
    """The evaluator's own settings, if it has any."""

    def __init__(self, context: "EvalContext", settings: Any) -> None:
        self.context, self.settings = context, settings

    @abstractmethod
    def measure(self) -> Yields:
        """Yield the values; may take hours."""

    def protocol(self) -> dict[str, Any]:
        """The protocol by which the values were measured, as JSON."""
        return self.context.protocol()


def share(name: str, hits: "Tensor | npt.NDArray[Any]") -> PerImageMetric:
    """A share of images, from a truth value for each."""
    values = np.asarray(hits, np.float64)
    return PerImageMetric(name, values, np.ones(len(values)))


def per_class(name: str, hits: "Tensor | npt.NDArray[Any]", labels: "Tensor | npt.NDArray[Any]") -> PerImageMetric:
    """The mean over the classes of their accuracies: an image counts as one over its class's number of images."""
    classes = np.asarray(labels)
    weights = 1 / np.bincount(classes)[classes]
    return PerImageMetric(name, np.asarray(hits, np.float64) * weights, weights)


def tops(name: str, logits: "Tensor", labels: "Tensor") -> Yields:
    """`NAME_top1` and, where there are more than five classes, `NAME_top5`."""
    yield share(f"{name}_top1", logits.argmax(dim=1) == labels)
    if logits.shape[1] > 5:
        yield share(f"{name}_top5", (logits.topk(5, dim=1).indices == labels[:, None]).any(dim=1))
