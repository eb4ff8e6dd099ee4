"""Every foreground before every background: shares of the features' variance, and the backgrounds challenge."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F

from bgsweep.data import Image
from bgsweep.evaluation.audit.measure import Found, Measure, NotApplicable, thumbnail
from bgsweep.evaluation.audit.subject import Subject
from bgsweep.evaluation.evaluator import PerImageMetric, share
from bgsweep.evaluation.metrics.reliance import shares
from bgsweep.images.decoding import cover

SIDE = 24
"""Foregrounds, and as many backgrounds of other images."""
_LEAST = 4
Features = npt.NDArray[np.float64]


def with_errors(features: Features, value: Callable[[Features], float], name: str) -> PerImageMetric:
    """A value of composites (F, B, D) with a part of each foreground and each background, F + B in all.

    Parts come from leaving a foreground or a background out (the jackknife's pseudo-values). Their mean is the value,
    and that of parts drawn with replacement varies by var_f / F + var_b / B, as of two crossed samples.
    """
    whole, (fronts, behind, _) = value(features), features.shape
    parts = []
    for axis, count in enumerate((fronts, behind)):
        left_out = np.array([value(np.delete(features, number, axis=axis)) for number in range(count)])
        pseudo = (count - 1) * (left_out.mean() - left_out)
        parts.append(whole + (fronts + behind) / count * pseudo)
    hits = np.concatenate(parts)
    return PerImageMetric(name, hits, np.ones(len(hits)))


def composites(subject: Subject) -> Found:
    """`bg_share` and `fg_share`; with classes also `challenge`, of foregrounds right before all the backgrounds."""
    drawn = subject.drawn(2 * SIDE, "composites")
    side = len(drawn) // 2
    if side < _LEAST:
        raise NotApplicable(f"it needs {2 * _LEAST} images with foreground and background; {len(drawn)} have both")
    fronts, behind = drawn[:side], drawn[side : 2 * side]

    def made(number: int) -> Image:
        return _composite(subject, int(fronts[number // side]), int(behind[number % side]))

    encoded = subject.encoded("composites", made, side * side)
    features = np.asarray(F.normalize(encoded, dim=1), np.float64).reshape(side, side, -1)
    values = [
        with_errors(features, lambda given: shares(given).background, "bg_share"),
        with_errors(features, lambda given: shares(given).foreground, "fg_share"),
    ]
    if subject.labelled:
        right = subject.hits(encoded, np.repeat(fronts, side)).reshape(side, side)
        values += [
            share("challenge", np.asarray(right.all(axis=1))),
            PerImageMetric("right", right.mean(axis=1), np.ones(side)),
        ]
    corner = [[thumbnail(made(row * side + column)) for column in range(_LEAST)] for row in range(_LEAST)]
    return Found(values, {"grid": corner, "side": side})


def _composite(subject: Subject, front: int, behind: int) -> Image:
    foreground, uncovered = subject.variants.cutout(front)
    background = cover(subject.variants.image("only_bg_t", behind), subject.size, subject.size)
    shown = background.astype(np.uint16) * uncovered[..., None] // 255
    return np.asarray(np.minimum(shown + foreground, 255), np.uint8)


MEASURE = Measure(
    "composites",
    "Every foreground before every background",
    "Shares of the variance of the encoder's features that backgrounds and foregrounds explain; the rest is their "
    "interaction. Classes are not needed. Challenge: foregrounds that are classified rightly before all backgrounds.",
    composites,
)
