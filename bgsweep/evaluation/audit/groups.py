"""Accuracy by class and kind of background: the worst group, and its images that fail."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from scipy.cluster.vq import kmeans2

from bgsweep.data import Image
from bgsweep.evaluation.audit.measure import Found, Measure, NotApplicable, thumbnail
from bgsweep.evaluation.audit.subject import Subject
from bgsweep.evaluation.evaluator import PerImageMetric
from bgsweep.evaluation.evaluators.groups import lowest_group, of_group

CLUSTERS, LEAST = 4, 5
"""The largest number of kinds of backgrounds; images that a group must have to be the worst."""
_SHOWN, _CELLS = 8, 4
Groups = npt.NDArray[np.int64]


def described(background: Image) -> npt.NDArray[np.float64]:
    """Colours of a background: mean Lab of 4 x 4 cells and its spread, which no encoder under audit has a part in."""
    lab = cv2.cvtColor(background, cv2.COLOR_RGB2LAB).astype(np.float32) / 255
    cells = cv2.resize(lab, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
    return np.concatenate([cells.reshape(-1) / _CELLS, lab.std(axis=(0, 1))]).astype(np.float64)


def clustered(descriptions: npt.NDArray[np.float64], count: int, seed: int) -> Groups:
    """Cluster (N,) of each description (N, D) by k-means++; clusters are ordered by size, the largest first."""
    count = min(count, len(np.unique(descriptions, axis=0)))
    found = kmeans2(descriptions, count, minit="++", seed=np.random.default_rng(seed), missing="warn")[1]
    order = np.argsort(-np.bincount(found, minlength=count), kind="stable")
    return np.asarray(np.argsort(order)[found], np.int64)


def number_of_kinds(labels: Groups) -> int:
    """So many kinds of backgrounds that groups of a usual class have enough images: 2 to `CLUSTERS`."""
    sizes = np.bincount(labels)
    return int(np.clip(np.median(sizes[sizes > 0]) // LEAST, 2, CLUSTERS))


def worst_group(hits: npt.NDArray[np.float64], groups: Groups, least: int = LEAST) -> tuple[int, PerImageMetric]:
    """The group (N,) of at least so many images with the lowest accuracy, and that accuracy, of that group alone.

    The lowest of many groups is low by chance, too: with 10 images of a group 20 points are.
    """
    worst = lowest_group(hits, groups, least)
    if worst is None:
        raise NotApplicable(f"no class has {least} audited images of one kind of background; audit more images")
    return worst, of_group("worst_group", hits, groups == worst)


def groups(subject: Subject) -> Found:
    """`worst_group`, and accuracy by class and kind of background."""
    variants, usable = subject.variants, subject.usable
    backgrounds = np.stack([described(variants.image("only_bg_t", int(index))) for index in usable])
    labels, names = subject.labels(usable), variants.source.classes
    kinds = clustered(backgrounds, number_of_kinds(labels), subject.seed)
    predicted = subject.predicted(subject.variant("original"))
    hits = (predicted == labels).astype(np.float64)
    worst, value = worst_group(hits, labels * CLUSTERS + kinds)
    label, kind = divmod(worst, CLUSTERS)
    failing = np.where((labels == label) & (kinds == kind) & (hits == 0))[0][:_SHOWN]
    details = {
        "table": _table(hits, labels, kinds, names),
        "kinds": [_middle(subject, backgrounds, kinds, each) for each in range(int(kinds.max()) + 1)],
        "worst": {"class": str(names[label]), "kind": int(kind)},
        "failing": [
            {
                "image": thumbnail(variants.image("original", int(usable[row]))),
                "id": str(variants.source.ids[int(usable[row])]),
                "predicted": str(names[int(predicted[row])]),
            }
            for row in failing
        ],
    }
    return Found([value, PerImageMetric("all", hits, np.ones(len(hits)))], details)


def _table(
    hits: npt.NDArray[np.float64], labels: Groups, kinds: Groups, names: Sequence[str]
) -> list[dict[str, object]]:
    """For each class: its accuracy, and that on each kind of background with the number of images."""
    rows = []
    for label in np.unique(labels).tolist():
        cells = []
        for kind in range(int(kinds.max()) + 1):
            inside = (labels == label) & (kinds == kind)
            cells.append({"images": int(inside.sum()), "right": int(hits[inside].sum())})
        rows.append({"class": str(names[label]), "accuracy": float(hits[labels == label].mean()), "cells": cells})
    return rows


def _middle(subject: Subject, backgrounds: npt.NDArray[np.float64], kinds: Groups, kind: int) -> str:
    """The image whose background is nearest to the middle of its kind."""
    rows = np.where(kinds == kind)[0]
    apart = ((backgrounds[rows] - backgrounds[rows].mean(axis=0)) ** 2).sum(axis=1)
    return thumbnail(subject.variants.image("only_bg_t", int(subject.usable[rows[int(apart.argmin())]])))


MEASURE = Measure(
    "groups",
    "Worst group",
    "Accuracy by class and kind of background. Backgrounds are clustered by their colours, without any encoder.",
    groups,
    labels=True,
)
