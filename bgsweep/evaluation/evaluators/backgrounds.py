"""The user's test images on other backgrounds: accuracy on each variant, BG-Gap, and the backgrounds challenge.

BG-Gap = Mixed-Same - Mixed-Rand (Xiao et al. 2020): what is lost when only the background's class changes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bgsweep.config.evaluation import VARIANTS, Variant
from bgsweep.data import Image
from bgsweep.errors import UserError
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets.on_demand import MadeOnDemand
from bgsweep.evaluation.evaluator import Evaluator, Yields, share
from bgsweep.evaluation.evaluators.backgrounds_challenge import BLOCK, kept_backgrounds, robust
from bgsweep.evaluation.evaluators.knn import knn_protocol, nearest
from bgsweep.evaluation.evaluators.linear import LinearHead, linear_head, linear_protocol

Predict = Callable[[Tensor], Tensor]
"""From features (N, D) to classes (N,)."""
PROBES: dict[str, Callable[[EvalContext], Predict]] = {
    "knn": lambda context: partial(nearest, context),
    "linear": lambda context: linear_head(context).predict,
}
PROTOCOLS: dict[str, Callable[[EvalContext], dict[str, Any]]] = {
    "knn": lambda context: dict(knn_protocol(context.config.evaluate.knn)),
    "linear": lambda context: linear_protocol(linear_head(context), context),
}


def backgrounds(
    context: EvalContext, probes: Sequence[str] = ("knn", "linear"), variants: Sequence[Variant] = VARIANTS
) -> Evaluator:
    """`PROBE/VARIANT` and `PROBE/bg_gap`: background variants made on the fly, by each probe of `PROBES`."""
    source = context.features.source
    if not source.has_masks:
        raise UserError(
            f"{source.name}: background variants need foreground masks; set data.masks, or name other evaluators"
        )
    if len(np.unique(source.labels)) < 2:
        raise UserError(f"{source.name}: it has one class, and mixed_rand needs another's backgrounds; leave it out")

    def measure() -> Yields:
        for probe in probes:
            yield from on_variants(context, probe, variants)

    def protocol() -> dict[str, Any]:
        found = context.protocol()
        for probe in probes:
            found |= PROTOCOLS[probe](context)
        return found | context.features.variants().protocol()

    return Evaluator(measure, protocol)


def on_variants(context: EvalContext, probe: str, variants: Sequence[Variant] = VARIANTS) -> Yields:
    """One probe's accuracy on each variant, and BG-Gap."""
    predict, found = PROBES[probe](context), {}
    for name in variants:
        features = context.features.variant(name)
        hits = share(f"{probe}/{name}", predict(features.values) == features.labels)
        found[name] = hits.by_image(context.features.image_numbers(name))
        yield found[name]
    yield found["mixed_same"].minus(found["mixed_rand"], f"{probe}/bg_gap")


def challenge(context: EvalContext) -> Evaluator:
    """The backgrounds challenge on the user's images: each foreground before every Only-BG-T of the set.

    `challenge` is the share of foregrounds that the linear probe classifies rightly before all of them.
    """
    cache = context.features
    if not cache.source.has_masks:
        raise UserError(f"{cache.source.name}: the challenge needs foreground masks; set data.masks")

    def measure() -> Yields:
        count = len(cache.variants().usable)
        looked = context.looked()
        task = partial(_hold, linear=linear_head(context), looked=looked)
        held = context.each(task, context.slices(count, BLOCK, count**2), count**2)
        yield share("challenge", np.concatenate(list(held)))

    def protocol() -> dict[str, Any]:
        tried = {"backgrounds_for_each": len(cache.variants().usable)}
        return context.protocol() | linear_protocol(linear_head(context), context) | tried

    return Evaluator(measure, protocol)


def _hold(
    context: EvalContext, numbers: slice, linear: LinearHead, looked: Mapping[int, bool] | None
) -> npt.NDArray[np.bool_]:
    """True for the foregrounds that are classified rightly before all backgrounds."""
    context.features.look = lambda: looked
    variants = context.features.variants()
    usable = variants.usable
    part = usable[numbers]

    def classify(images: Image) -> npt.NDArray[np.int64]:
        return np.asarray(linear.predict(context.model.encode(torch.from_numpy(images))).numpy(), np.int64)

    def made() -> MadeOnDemand:
        return kept_backgrounds(len(usable), lambda number: variants.image("only_bg_t", usable[number]))

    behind = context.once("backgrounds of the user's images", made)
    labels = context.features.source.labels[part]
    return robust(
        lambda number: variants.cutout(part[number]), labels, behind, classify, context.config.evaluate.batch_size
    )


EVALUATORS: dict[str, Callable[[EvalContext], Evaluator]] = {"backgrounds": backgrounds, "challenge": challenge}
