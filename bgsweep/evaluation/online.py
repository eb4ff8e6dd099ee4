"""What is measured: evaluators by name, the cheap look during training, and the report at its end.

An evaluator takes an encoder on the bench and yields named values, each a share in [0, 1].
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar

import cv2
import numpy as np
from torch import Tensor

from bgsweep.config import Evaluate, Knn, Linear
from bgsweep.config.evaluation import VARIANTS, Variant
from bgsweep.data import UNLABELLED, Image, SplitName, Splits
from bgsweep.errors import UnreadableImage, UserError, warn_once
from bgsweep.evaluation.bootstrap import by_photograph
from bgsweep.evaluation.datasets.background_variants import MAX_AREA, MIN_AREA, VariantSet
from bgsweep.evaluation.evaluators.knn import knn_predict
from bgsweep.evaluation.evaluators.linear import LinearHead, fit_linear
from bgsweep.evaluation.feature_cache import FeatureCache
from bgsweep.evaluation.features import Encode, accuracy
from bgsweep.evaluation.frozen_model import PerImageMetric, Yields, share

Values = Iterator[tuple[str, float]]
Predict = Callable[[Tensor], Tensor]
T = TypeVar("T")

# More images that are deleted during one evaluation are no accident.
_LOST_FILES = 5


@dataclass(frozen=True)
class Report:
    """Accuracies as shares in [0, 1], and how they were measured.

    `knn_top1` and `linear_top1` are of the pictures that the configuration names (`evaluate.variant`); `backgrounds`
    (kNN) and `backgrounds_linear` hold every variant and `bg_gap` (BG-Gap = Mixed-Same - Mixed-Rand), and are None
    where there are no masks or only one class. `decisive` is `knn_top1` photograph by photograph.
    """

    knn_top1: float
    linear_top1: float
    backgrounds: dict[str, float] | None
    backgrounds_linear: dict[str, float] | None
    protocol: dict[str, Any]
    decisive: PerImageMetric

    def public(self) -> dict[str, Any]:
        """As JSON; without single photographs."""
        shown = asdict(self)
        del shown["decisive"]
        return shown


def knn(bench: FeatureCache) -> Values:
    """`knn_top1` of the configured variant."""
    yield "knn_top1", decisive(bench).value


def decisive(bench: FeatureCache) -> PerImageMetric:
    """The same by photographs."""
    return _measured(bench, "knn_top1", bench.settings.variant, _knn_predictor(bench))


def _measured(bench: FeatureCache, name: str, variant: Variant, predict: Predict) -> PerImageMetric:
    found = bench.variant(variant)
    repeats = bench.variants().repeats(variant) if bench.source.has_masks else 1
    return by_photograph(share(name, predict(found.values) == found.labels), np.arange(len(found.labels)) // repeats)


def background_values(bench: FeatureCache, predict: Predict) -> Values:
    """Accuracy on each background variant, and BG-Gap."""
    for one in measured_variants(bench, predict):
        yield one.name, one.value


def measured_variants(bench: FeatureCache, predict: Predict) -> Yields:
    """The same with the photographs that it is made of."""
    found = {}
    for name in VARIANTS:
        found[name] = _measured(bench, name, name, predict)
        yield found[name]
    yield found["mixed_same"].minus(found["mixed_rand"], "bg_gap")


def check(splits: Splits, settings: Evaluate, evaluated: Sequence[SplitName] = ("validation", "test")) -> None:
    """Refuse before training what the evaluation could not do after it.

    Args:
        evaluated: the splits that will be; pretraining does not use `test`.

    Raises:
        UserError: a background variant is asked for where there are no masks; a split has no class folders although
            the training photographs have; backgrounds of another class are asked for where there is only one.
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


def online(encode: Encode, splits: Splits, settings: Evaluate, size: int) -> dict[str, float]:
    """What a training run is looked at by: kNN on the validation split; nothing where there are no classes."""
    if not splits.train.classes:
        return {}
    return _without_lost_files(splits, lambda: _online(FeatureCache(encode, splits, settings, size, "validation")))


def _online(bench: FeatureCache) -> dict[str, float]:
    values = dict(knn(bench))
    if bench.settings.bg_gap:
        predict = _knn_predictor(bench)
        found = {name: bench.variant(name) for name in ("mixed_same", "mixed_rand")}
        shares = {name: accuracy(predict(each.values), each.labels) for name, each in found.items()}
        values |= {**shares, "bg_gap": shares["mixed_same"] - shares["mixed_rand"]}
    return values


def final(encode: Encode, splits: Splits, settings: Evaluate, size: int) -> Report:
    """Everything, on the test split.

    Raises:
        UserError: the photographs have no classes.
    """
    return _without_lost_files(splits, lambda: _final(FeatureCache(encode, splits, settings, size, "test")))


def _final(bench: FeatureCache) -> Report:
    settings = bench.settings
    masks = bench.source.has_masks and len(np.unique(bench.source.labels)) > 1
    head = fit_linear(bench.train(), settings.linear, bench.classes)
    chosen = bench.variant(settings.variant)
    judged = decisive(bench)
    return Report(
        knn_top1=judged.value,
        linear_top1=accuracy(head.predict(chosen.values), chosen.labels),
        backgrounds=dict(background_values(bench, _knn_predictor(bench))) if masks else None,
        backgrounds_linear=dict(background_values(bench, head.predict)) if masks else None,
        protocol=_protocol(bench, head),
        decisive=judged,
    )


def _without_lost_files(splits: Splits, measure: Callable[[], T]) -> T:
    """Measure, and again without an image that was deleted meanwhile: which ones can be read is found out anew."""
    for _ in range(_LOST_FILES):
        try:
            return measure()
        except UnreadableImage as error:
            warn_once(f"{error}; the evaluation begins again without it")
            splits.kept.clear()
    return measure()


def variant_sheet(
    variants: VariantSet, rows: int = 4, cell: int = 128, accuracy: Mapping[str, float] | None = None
) -> Image:
    """A picture for the eye: one photograph a row, one background variant a column, its accuracy above it if given."""
    step = max(1, len(variants.usable) // rows)
    shown = variants.usable[::step][:rows]
    pictures = [[variants.picture(name, index) for name in VARIANTS] for index in shown]
    return side_by_side(pictures, VARIANTS, accuracy or {}, cell)


def side_by_side(
    pictures: Iterable[Sequence[Image]], names: Sequence[str], accuracy: Mapping[str, float], cell: int = 128
) -> Image:
    """Rows of pictures, a column for each name, with its accuracy above it if given."""
    margin = np.full((cell, 6, 3), 255, np.uint8)
    lines = [_heading(cell, names, accuracy)]
    for row in pictures:
        cells = [_enlarged(picture, cell) for picture in row]
        lines += [np.hstack([part for one in cells for part in (margin, one)] + [margin])]
        lines += [np.full((6, lines[1].shape[1], 3), 255, np.uint8)]
    return np.vstack(lines)


def _knn_predictor(bench: FeatureCache) -> Predict:
    return partial(_knn_of, bench)


def _knn_of(bench: FeatureCache, queries: Tensor) -> Tensor:
    return knn_predict(bench.train(), queries, bench.settings.knn, bench.classes)


def _protocol(bench: FeatureCache, head: LinearHead) -> dict[str, Any]:
    settings = bench.settings
    words = {"variant": settings.variant, "knn": knn_words(settings.knn), "seed": settings.seed}
    words |= square_words(bench) | linear_words(head, settings.linear)
    return words | (variant_words(bench) if bench.source.has_masks else {})


def square_words(bench: FeatureCache) -> dict[str, Any]:
    """The protocol in words: which photographs, and how they are seen."""
    return {
        "features": "encoder output, float32, eval mode",
        "preprocessing": f"shorter side {round(bench.size * 8 / 7)} px (averaged over areas; bilinear where it grows), "
        f"centre square {bench.size} px",
        "train": f"{bench.splits.train.name}: {len(bench.splits.train)} photographs, not augmented",
        "test": f"{bench.source.name}: {len(bench.source)} images",
    }


def knn_words(settings: Knn) -> str:
    """The protocol of kNN in words."""
    return f"k {settings.k}, temperature {settings.temperature:g}, cosine"


def linear_words(head: LinearHead, settings: Linear) -> dict[str, Any]:
    """The protocol of the linear probe in words, with what it chose."""
    return {
        "linear": f"softmax regression, {settings.epochs} epochs of SGD on standardised features; rate and decay "
        f"chosen on {settings.holdout:.0%} of train, drawn by class",
        "linear_grid": f"rates {_listed(settings.lrs)}; decays {_listed(settings.weight_decays)}",
        "linear_seed": settings.seed,
        "linear_lr": head.lr,
        "linear_weight_decay": head.weight_decay,
        "linear_held_out_top1": head.held_out_top1,
    }


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def variant_words(bench: FeatureCache) -> dict[str, Any]:
    """The protocol of background variants in words."""
    return {
        "left_out": f"{bench.variants().left_out} photographs whose foreground covers less than {MIN_AREA:.0%} or more "
        f"than {MAX_AREA:.0%} of the square",
        "mixed_same": "background of the same class, another photograph's",
        "mixed_rand": "background of a class drawn from all the others",
        "mixed_next": "background of the next class in order",
        "composition": "cut apart at the photograph's resolution, then brought to size; the rim where both show (about "
        "1 % of the shorter side, a pixel at least) is in neither",
        "backgrounds_per_foreground": bench.settings.repeats,
    }


def _enlarged(picture: Image, cell: int) -> Image:
    flag = cv2.INTER_NEAREST if picture.shape[0] <= cell else cv2.INTER_AREA
    return np.asarray(cv2.resize(picture, (cell, cell), interpolation=flag), np.uint8)


def _heading(cell: int, names: Sequence[str], accuracy: Mapping[str, float]) -> Image:
    line = np.full((24, (cell + 6) * len(names) + 6, 3), 255, np.uint8)
    for column, name in enumerate(names):
        place = (column * (cell + 6) + 8, 17)
        text = f"{name} {100 * accuracy[name]:.0f}%" if name in accuracy else name
        cv2.putText(line, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
    return line
