"""A run's own evaluations: the cheap one during training, and the report at its end.

Both are the evaluators of `bgsweep evaluate` (knn, linear, backgrounds) on a context of the run's config.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np

from bgsweep.config import Evaluate, SuiteConfig
from bgsweep.data import UNLABELLED, ImageDataset, SplitName, Splits
from bgsweep.errors import UnreadableImage, UserError, warn_once
from bgsweep.evaluation.bank import online_bank
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.evaluator import PerImageMetric, Result
from bgsweep.evaluation.evaluators.backgrounds import backgrounds, on_variants
from bgsweep.evaluation.evaluators.knn import knn
from bgsweep.evaluation.evaluators.linear import linear
from bgsweep.evaluation.frozen_model import FrozenModel
from bgsweep.evaluation.ranks import Ranks

T = TypeVar("T")

_LOST_FILES = 5  # more images that are deleted during one evaluation are no accident


@dataclass(frozen=True)
class Report:
    """Accuracies as shares in [0, 1], and how they were measured.

    `knn_top1` and `linear_top1` are of the configured variant (`evaluate.variant`); `backgrounds`
    (kNN) and `backgrounds_linear` hold every variant and `bg_gap` (BG-Gap = Mixed-Same - Mixed-Rand), and are None
    where there are no masks or only one class. `decisive` is `knn_top1` image by image.
    """

    knn_top1: float
    linear_top1: float
    backgrounds: dict[str, float] | None
    backgrounds_linear: dict[str, float] | None
    protocol: dict[str, Any]
    decisive: PerImageMetric

    def public(self) -> dict[str, Any]:
        """As JSON; without the single images."""
        shown = asdict(self)
        del shown["decisive"]
        return shown


def check(splits: Splits, settings: Evaluate, evaluated: Sequence[SplitName] = ("validation", "test")) -> None:
    """Check before training that its evaluations will be able to run.

    Args:
        evaluated: the splits that will be; pretraining does not use `test`.

    Raises:
        UserError: a background variant is asked for where there are no masks; a split has no class folders although
            the training images have; backgrounds of another class are asked for where there is only one.
    """
    parts = [getattr(splits, name) for name in evaluated]
    for split in parts:
        if splits.train.classes and UNLABELLED in split.labels:
            raise UserError(f"{split.name}: put its images into class folders, as {splits.train.name} has them")
        if (settings.variant == "mixed_rand" or settings.bg_gap) and len(np.unique(split.labels)) < 2:
            key = "bg_gap" if settings.bg_gap else "variant"
            raise UserError(
                f"evaluate.{key}: {split.name} has one class, and mixed_rand needs another's backgrounds; leave it out"
            )
    masks = all(split.has_masks for split in parts)
    if settings.variant != "original" and not masks:
        raise UserError(f"evaluate.variant: {settings.variant} needs foreground masks; set data.masks, or use original")
    if settings.bg_gap and not masks:
        raise UserError("evaluate.bg_gap: BG-Gap needs foreground masks; set data.masks, or leave it out")


def online(
    model: FrozenModel,
    splits: Splits,
    settings: Evaluate,
    size: int,
    ranks: Ranks | None = None,
    threads: int = 0,
) -> dict[str, float]:
    """Evaluate a model in training by kNN on the validation split; {} where there are no classes.

    `knn_bank`, the number of training images compared with, is among the values where it is not all of them.

    Args:
        ranks: evaluate together; all of them call this, with the same model, and get the same values.
        threads: threads that decode images ahead of the encoder; 0 decodes in this one.
    """
    if not splits.train.classes:
        return {}
    bank = _bank(splits, settings)
    banked = replace(splits, train=bank)

    def measure() -> dict[str, float]:
        config = SuiteConfig(evaluate=settings, size=size)
        return _online(EvalContext(model, config, banked, split="validation", ranks=ranks, threads=threads))

    found = without_lost_files(banked, measure)
    return found if bank is splits.train else found | {"knn_bank": float(len(bank))}


def _bank(splits: Splits, settings: Evaluate) -> ImageDataset:
    """`online_bank`, drawn once in a process."""
    key = ("online bank", settings.online_bank, settings.seed)
    if key not in splits.kept:
        splits.kept[key] = online_bank(splits.train, settings)
    bank: ImageDataset = splits.kept[key]
    return bank


def _online(context: EvalContext) -> dict[str, float]:
    values = {one.name: one.value for one in knn(context).measure()}
    if context.config.evaluate.bg_gap:
        # Only the two variants of BG-Gap: each of the other six would be another pass of the encoder.
        found = {one.name: one.value for one in on_variants(context, "knn", ("mixed_same", "mixed_rand"))}
        same, rand = found["knn/mixed_same"], found["knn/mixed_rand"]
        values |= {"mixed_same": same, "mixed_rand": rand, "bg_gap": same - rand}
    return values


def final(context: EvalContext) -> Report:
    """Evaluate a trained model on the test split by all that the run's config allows.

    Raises:
        UserError: the images have no classes.
    """
    assert context.splits is not None, "a run has images"
    return without_lost_files(context.splits, lambda: _final(context.anew()))


def _final(context: EvalContext) -> Report:
    source = context.features.source
    opened = {"knn": knn(context), "linear": linear(context)}
    if source.has_masks and len(np.unique(source.labels)) > 1:
        opened["backgrounds"] = backgrounds(context)
    results = [evaluator.run(name) for name, evaluator in opened.items()]
    found = {one.name: one for result in results for one in result.values}
    return Report(
        knn_top1=found["knn_top1"].value,
        linear_top1=found["linear_top1"].value,
        backgrounds=_of_probe(results, "knn"),
        backgrounds_linear=_of_probe(results, "linear"),
        protocol={key: value for result in results for key, value in result.protocol.items()},
        decisive=found["knn_top1"],
    )


def _of_probe(results: list[Result], probe: str) -> dict[str, float] | None:
    values = {one.name: one.value for result in results for one in result.values}
    chosen = {name.removeprefix(f"{probe}/"): value for name, value in values.items() if name.startswith(f"{probe}/")}
    return chosen or None


def without_lost_files(splits: Splits, measure: Callable[[], T]) -> T:
    """Measure, and start again without an image that was deleted meanwhile.

    Clearing what is kept beside the splits makes the next attempt look anew for the images that can be read.
    """
    for _ in range(_LOST_FILES):
        try:
            return measure()
        except UnreadableImage as error:
            warn_once(f"{error}; the evaluation begins again without it")
            splits.kept.clear()
    return measure()
