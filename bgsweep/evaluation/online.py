"""A run's own evaluations: the cheap one during training, and the report at its end.

The report has the evaluators of `bgsweep evaluate` (knn, linear, backgrounds) on a context of the run's config; the one
during training has the metrics of `bgsweep/evaluation/metrics/`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from bgsweep.config import Evaluate, SuiteConfig, plugins
from bgsweep.config.metrics import METRIC_PARTS, MetricSection
from bgsweep.data import UNLABELLED, ImageDataset, SplitName, Splits
from bgsweep.errors import UnreadableImage, UserError, warn_once
from bgsweep.evaluation.bank import online_bank
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.evaluator import PerImageMetric, Result
from bgsweep.evaluation.evaluators.backgrounds import backgrounds
from bgsweep.evaluation.evaluators.knn import knn
from bgsweep.evaluation.evaluators.linear import linear
from bgsweep.evaluation.frozen_model import FrozenModel
from bgsweep.evaluation.metrics.base import OnlineMetric
from bgsweep.evaluation.ranks import Ranks

T = TypeVar("T")

_LOST_FILES = 5  # more images that are deleted during one evaluation are no accident


@dataclass(frozen=True)
class Report:
    """Accuracies as shares in [0, 1], and how they were measured.

    `knn_top1` and `linear_top1` are of the configured variant (`evaluate.variant`); `backgrounds`
    (kNN) and `backgrounds_linear` hold every variant and `bg_gap` (BG-Gap = Mixed-Same - Mixed-Rand), and are None
    where there are no masks or only one class. `decisive` is `knn_top1` image by image. Without classes all of these
    are None, and `unlabelled` has the metrics that need none, with their standard errors, such as `test/rankme/rank`.
    """

    knn_top1: float | None
    linear_top1: float | None
    backgrounds: dict[str, float] | None
    backgrounds_linear: dict[str, float] | None
    protocol: dict[str, Any]
    decisive: PerImageMetric | None
    unlabelled: dict[str, float] = field(default_factory=dict)

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
        wants_gap = settings.bg_gap or any(one.name == "bg_gap" for one in settings.metrics)
        if (settings.variant == "mixed_rand" or wants_gap) and len(np.unique(split.labels)) < 2:
            key = "bg_gap" if settings.bg_gap else "metrics" if wants_gap else "variant"
            raise UserError(
                f"evaluate.{key}: {split.name} has one class, and mixed_rand needs another's backgrounds; leave it out"
            )
    masks = all(split.has_masks for split in parts)
    if settings.variant != "original" and not masks:
        raise UserError(f"evaluate.variant: {settings.variant} needs foreground masks; set data.masks, or use original")
    if settings.bg_gap and not masks:
        raise UserError("evaluate.bg_gap: BG-Gap needs foreground masks; set data.masks, or leave it out")
    for one in settings.metrics:
        if one.needs_masks and not masks:
            raise UserError(f"evaluate.metrics: {one.name} needs foreground masks; set data.masks, or leave it out")
        if one.needs_classes and not splits.train.classes:
            raise UserError(
                f"{splits.train.name}: {one.name} needs classes; put the images into class folders, or name other "
                "metrics in search.metric and evaluate.metrics (docs/metrics.md)"
            )


def online(
    model: FrozenModel,
    splits: Splits,
    settings: Evaluate,
    size: int,
    ranks: Ranks | None = None,
    threads: int = 0,
) -> dict[str, float]:
    """Evaluate a model in training on the validation split: by kNN, where there are classes, and `settings.metrics`.

    `knn_bank`, the number of training images compared with, is among the values where it is not all of them. Beside a
    metric's NAME stands its standard error, ``NAME_se``, where it has one.

    Args:
        ranks: evaluate together; all of them call this, with the same model, and get the same values.
        threads: threads that decode images ahead of the encoder; 0 decodes in this one.
    """
    metrics = measured(splits, settings)
    bank = _bank(splits, settings) if splits.train.classes else splits.train
    banked = replace(splits, train=bank)

    def measure() -> dict[str, float]:
        config = SuiteConfig(evaluate=settings, size=size)
        context = EvalContext(model, config, banked, split="validation", ranks=ranks, threads=threads)
        return {name: value for section in metrics for name, value in _values(section, context)}

    found = without_lost_files(banked, measure)
    return found if bank is splits.train else found | {"knn_bank": float(len(bank))}


def measured(splits: Splits, settings: Evaluate) -> list[MetricSection]:
    """The metrics of an online evaluation, those of labels first."""
    labelled = [*(["knn"] if splits.train.classes else []), *(["bg_gap"] if settings.bg_gap else [])]
    others = [one for one in settings.metrics if one.name not in labelled]
    return [*(METRIC_PARTS[name].model_validate({"name": name}) for name in labelled), *others]


def _values(section: MetricSection, context: EvalContext) -> Iterator[tuple[str, float]]:
    """A metric's values by their names in journals, with their standard errors."""
    for one in open_metric(section, context).measure():
        name = section.recorded(section.name, one.name)
        yield name, one.value
        if one.error is not None and math.isfinite(one.error):
            yield f"{name}_se", one.error


def open_metric(section: MetricSection, context: EvalContext) -> OnlineMetric:
    """A metric with all that it needs.

    Raises:
        UserError: something is missing.
    """
    metric: OnlineMetric = plugins.imported(section.implementation, section.name)(section, context)
    return metric


def _bank(splits: Splits, settings: Evaluate) -> ImageDataset:
    """`online_bank`, drawn once in a process."""
    key = ("online bank", settings.online_bank, settings.seed)
    if key not in splits.kept:
        splits.kept[key] = online_bank(splits.train, settings)
    bank: ImageDataset = splits.kept[key]
    return bank


def final(context: EvalContext) -> Report:
    """Evaluate a trained model on the test split by all that the run's config allows.

    Raises:
        UserError: the images have no classes, and no metrics are configured that do without.
    """
    assert context.splits is not None, "a run has images"
    labelled = context.splits.train.classes or not context.config.evaluate.metrics
    measure = _final if labelled else _final_unlabelled
    return without_lost_files(context.splits, lambda: measure(context.anew()))


def _final_unlabelled(context: EvalContext) -> Report:
    assert context.splits is not None, "a run has images"
    values: dict[str, float] = {}
    for section in measured(context.splits, context.config.evaluate):
        values |= {name.replace("validation", "test", 1): value for name, value in _values(section, context)}
    metrics = [one.model_dump(mode="json") for one in context.config.evaluate.metrics]
    return Report(None, None, None, None, context.images.protocol() | {"metrics": metrics}, None, values)


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
