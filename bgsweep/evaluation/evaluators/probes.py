"""Probes of the user's labelled photographs: kNN, linear, and both on every background variant."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bgsweep.config import Knn
from bgsweep.data import Image
from bgsweep.errors import UserError
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets.on_demand import MadeOnDemand
from bgsweep.evaluation.evaluator import Evaluator
from bgsweep.evaluation.evaluators.backgrounds_challenge import BLOCK, kept_backgrounds, robust
from bgsweep.evaluation.evaluators.knn import knn_predict
from bgsweep.evaluation.evaluators.linear import LinearHead
from bgsweep.evaluation.features import Features
from bgsweep.evaluation.frozen_model import Yields, share, tops
from bgsweep.evaluation.online import knn_words, linear_words, measured_variants, square_words, variant_words

# InstDisc's, which lightly's benchmarks use; DINO's.
KNN_SETTINGS = {"knn_lightly": Knn(k=200, temperature=0.1), "knn_dino": Knn(k=20, temperature=0.07)}


def knn(context: EvalContext, settings: Knn | None = None) -> Evaluator:
    """Weighted kNN with the file's k and temperature, or with those of a named protocol."""
    bench = context.features
    chosen = settings or bench.settings.knn

    def measure() -> Yields:
        predicted = knn_predict(bench.train(), context.test.values, chosen, bench.classes)
        yield share("knn_top1", predicted == context.test.labels)

    return Evaluator(measure, lambda: sets(context) | {"knn": knn_words(chosen)})


def linear(context: EvalContext) -> Evaluator:
    """The linear probe on cached features, its rate and decay chosen on a part held out of train."""

    def measure() -> Yields:
        yield from top1("linear", context.linear.logits, context.test)

    _ = context.features
    return Evaluator(measure, lambda: sets(context) | linear_words(context.linear, context.config.evaluate.linear))


def backgrounds(context: EvalContext) -> Evaluator:
    """All eight background variants made on the fly, by kNN and by linear probe, with BG-Gap.

    BG-Gap = Mixed-Same - Mixed-Rand (Xiao et al. 2020).
    """
    bench = context.features
    if not bench.source.has_masks:
        raise UserError(
            f"{bench.source.name}: background variants need foreground masks; set data.masks, or name other evaluators"
        )
    if len(np.unique(bench.source.labels)) < 2:
        raise UserError(
            f"{bench.source.name}: it has one class, and mixed_rand needs another's backgrounds; leave it out"
        )

    def measure() -> Yields:
        def nearest(features: Tensor) -> Tensor:
            return knn_predict(bench.train(), features, bench.settings.knn, bench.classes)

        for probe, predict in (("knn", nearest), ("linear", context.linear.predict)):
            for one in measured_variants(bench, predict):
                yield replace(one, name=f"{probe}/{one.name}")

    def protocol() -> dict[str, Any]:
        probes = {"knn": knn_words(bench.settings.knn)} | linear_words(context.linear, context.config.evaluate.linear)
        return sets(context) | probes | variant_words(bench)

    return Evaluator(measure, protocol)


def challenge(context: EvalContext) -> Evaluator:
    """The backgrounds challenge on the user's photographs: each foreground before every Only-BG-T of the set.

    `challenge` is the share of foregrounds that the linear probe classifies rightly before all of them.
    """
    bench = context.features
    if not bench.source.has_masks:
        raise UserError(f"{bench.source.name}: the challenge needs foreground masks; set data.masks")

    def measure() -> Yields:
        count = len(bench.variants().usable)
        looked = context.looked()
        task = partial(_hold, linear=context.linear, looked=looked)
        held = context.each(task, context.slices(count, BLOCK, count**2), count**2)
        yield share("challenge", np.concatenate(list(held)))

    def protocol() -> dict[str, Any]:
        tried = {"backgrounds_for_each": len(bench.variants().usable)}
        return sets(context) | linear_words(context.linear, context.config.evaluate.linear) | tried

    return Evaluator(measure, protocol)


def _hold(
    context: EvalContext, numbers: slice, linear: LinearHead, looked: Mapping[int, bool] | None
) -> npt.NDArray[np.bool_]:
    """Which of some foregrounds hold out before all backgrounds."""
    context.features.look = lambda: looked
    variants = context.features.variants()
    usable = variants.usable
    part = usable[numbers]

    def classify(pictures: Image) -> npt.NDArray[np.int64]:
        return np.asarray(linear.predict(context.model.encode(torch.from_numpy(pictures))).numpy(), np.int64)

    def backgrounds() -> MadeOnDemand:
        return kept_backgrounds(len(usable), lambda number: variants.picture("only_bg_t", usable[number]))

    behind = context.once("backgrounds of one's own", backgrounds)
    labels = context.features.source.labels[part]
    return robust(
        lambda number: variants.cutout(part[number]), labels, behind, classify, context.config.evaluate.batch_size
    )


def top1(name: str, head: Callable[[Tensor], Tensor], features: Features) -> Yields:
    """`NAME_top1` and, where there are more than five classes, `NAME_top5`."""
    yield from tops(name, head(features.values), features.labels)


def sets(context: EvalContext) -> dict[str, Any]:
    """Which photographs were used, and how they were seen."""
    counted = {"pictures": len(context.test.labels), "seed": context.config.evaluate.seed}
    return square_words(context.features) | counted


EVALUATORS: dict[str, Callable[[EvalContext], Evaluator]] = {
    "knn": knn,
    **{name: partial(knn, settings=settings) for name, settings in KNN_SETTINGS.items()},
    "linear": linear,
    "backgrounds": backgrounds,
    "challenge": challenge,
}
