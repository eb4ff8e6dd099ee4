"""Nearest neighbours before and after an image's background is exchanged."""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from bgsweep.config.evaluation import Variant
from bgsweep.evaluation.audit.measure import Found, Measure, thumbnail
from bgsweep.evaluation.audit.subject import Subject
from bgsweep.evaluation.evaluator import PerImageMetric, share

K = 5
_SHOWN, _ROWS = 4, 4


def towards_background(swapped: Tensor, foregrounds: Tensor, backgrounds: Tensor) -> npt.NDArray[np.float64]:
    """1 where a composite (N, D) is nearer to its background's image than to its foreground's; 0.5 if equal."""
    near = (F.cosine_similarity(swapped, each, dim=1) for each in (backgrounds, foregrounds))
    behind, before = (np.asarray(each, np.float64) for each in near)
    return np.where(np.isclose(behind, before, atol=1e-6), 0.5, behind > before)


def nearest(queries: Tensor, bank: Tensor, own: npt.NDArray[np.int64], k: int) -> npt.NDArray[np.int64]:
    """Rows (N, k) of the bank that are nearest to the queries (cosine), each query's own row (N,) left out."""
    similarity = (F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).t()).numpy()
    similarity[np.arange(len(own)), own] = -np.inf
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k]


def neighbours(subject: Subject) -> Found:
    """`towards_background`, and `kept`: the share of the nearest five that the exchange leaves."""
    variants, part = subject.variants, subject.part
    kind: Variant = "mixed_rand" if subject.labelled else "mixed_same"
    donors = np.array([variants.pools.origins[variants.donor(kind, int(index), 0)] for index in part], np.int64)
    known = np.isin(donors, subject.usable)  # a background may be of an image that is not audited
    own = np.searchsorted(subject.usable, part)
    swapped, originals = subject.variant(kind)[torch.from_numpy(own)], subject.variant("original")
    before, after = (nearest(each, originals, own, K) for each in (subject.originals(part), swapped))
    kept = np.array([len(np.intersect1d(*pair)) for pair in zip(before, after, strict=True)]) / max(1, before.shape[1])
    rows = np.where(known)[0]
    nearer = towards_background(swapped[rows], subject.originals(part[rows]), subject.originals(donors[rows]))
    values = [share("towards_background", nearer), PerImageMetric("kept", kept, np.ones(len(kept)))]
    shown = []
    for number in range(0, len(part), max(1, len(part) // _ROWS))[:_ROWS]:
        found = []
        index = int(part[number])
        pairs: tuple[tuple[Variant, npt.NDArray[np.int64]], ...] = (("original", before), (kind, after))
        for name, near in pairs:
            rest = [variants.image("original", int(subject.usable[row])) for row in near[number, :_SHOWN]]
            found.append([thumbnail(each) for each in (variants.image(name, index), *rest)])
        shown.append(found)
    return Found(values, {"rows": shown})


MEASURE = Measure(
    "neighbours",
    "Neighbours before and after the background is exchanged",
    "The share of composites that are nearer to the image of their background than to that of their foreground, and "
    "the share of the five nearest neighbours that stay.",
    neighbours,
)
