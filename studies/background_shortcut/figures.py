"""The study's figures: images, differences between arms with their intervals, and a curve over a probability."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import cv2
import matplotlib as mpl
from matplotlib.figure import Figure

from bgsweep.augment.contact_sheet import view_grid
from bgsweep.data import open_splits
from bgsweep.data.datasets.shortcut import Recomposed
from bgsweep.evaluation.datasets.background_variants import VariantSet
from bgsweep.images.compositing import Image
from bgsweep.storage.tree import write_file
from studies.background_shortcut.findings import Found, Place, curve_points, difference, others, percent
from studies.background_shortcut.plan import NONE, Planned, StudyFile

_PANELS = {
    "biased/knn/bg_gap": "BG-gap, kNN,\nbiased images",
    "biased/knn/mixed_rand": "Mixed-Rand, kNN,\nbiased images",
    "unbiased/linear/original": "original, linear probe,\nunbiased images",
}
_CURVES = {
    "biased/knn/mixed_same": "Mixed-Same",
    "biased/knn/mixed_rand": "Mixed-Rand",
    "biased/knn/original": "original",
    "biased/knn/bg_gap": "BG-gap",
}
_VARIANTS: Mapping[Any, str] = {"mixed_same": "Mixed-Same", "mixed_rand": "Mixed-Rand", "only_fg": "Only-FG"}
_CLASSES = 5
_STYLE: Any = {
    "svg.fonttype": "none",  # letters as letters: small files, the reader's own font
    "svg.hashsalt": "bgsweep",
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
}


def draw(study: StudyFile, found: Found, run: Planned, folder: Path) -> None:
    """Write `images.png`, `rho_*.svg` and, if the study has a curve, `curve.svg`; ``run`` has the images."""
    picture = cv2.cvtColor(_images(run), cv2.COLOR_RGB2BGR)
    write_file(folder / "images.png", cv2.imencode(".png", picture)[1].tobytes())
    with mpl.rc_context(_STYLE):
        for rho in study.rhos:
            write_file(folder / f"rho_{rho:g}.svg", _svg(_arms(study, found, rho)))
        if curve_points(study):
            write_file(folder / "curve.svg", _svg(_curve(study, found)))


def _arms(study: StudyFile, found: Found, rho: float) -> Figure:
    """Each arm's difference from the reference in points: a row of panels for each method, one for each measure."""
    arms = {method: others(study, method) for method in study.methods}
    without = "without" if study.reference == NONE else f"with {study.reference}"
    heights = [0.28 * len(names) + 0.75 for names in arms.values()]
    figure = Figure(figsize=(9.0, sum(heights)), layout="constrained")
    grid = figure.subplots(len(arms), len(_PANELS), sharex="col", squeeze=False, height_ratios=heights)
    for row, (method, names) in zip(grid, arms.items(), strict=True):
        for axes, (key, words) in zip(row, _PANELS.items(), strict=True):
            _differences(axes, study, found, [(method, arm, rho) for arm in names], key)
            level = mean(percent(found, study, (method, study.reference, rho), key))
            axes.set_title(f"{words}: {level:.1f} {without}", fontsize=8)
            axes.set_yticks(range(len(names)), names if axes is row[0] else [], fontsize=8)
        row[0].set_ylabel(method, fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("difference in points", fontsize=8)
    return figure


def _differences(axes: Any, study: StudyFile, found: Found, places: Sequence[Place], key: str) -> None:
    """One below another: the mean with its interval, dark if that excludes zero, and small dots for the seeds."""
    axes.axvline(0, color="#777777", linewidth=0.8)
    for height, place in enumerate(places):
        one = difference(study, found, place, key)
        colour = "#0b4f8a" if one.significant else "#8a8a8a"
        axes.plot([100 * one.lower, 100 * one.upper], [height] * 2, color=colour, linewidth=2)
        axes.plot(100 * one.value, height, color=colour, marker="o", markersize=6)
        own, base = (percent(found, study, each, key) for each in (place, (place[0], study.reference, place[2])))
        seeds = [mine - other for mine, other in zip(own, base, strict=True)]
        axes.plot(seeds, [height + 0.25] * len(seeds), color="#9bb4cc", linestyle="", marker="o", markersize=3)
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.tick_params(labelsize=8)


def _curve(study: StudyFile, found: Found) -> Figure:
    """A panel for each measure over the augmentation's probability."""
    points = curve_points(study)
    figure = Figure(figsize=(2.7 * len(_CURVES), 2.5), layout="constrained")
    for axes, (key, words) in zip(figure.subplots(1, len(_CURVES)), _CURVES.items(), strict=True):
        columns = [percent(found, study, (study.curve.method, arm, study.rhos[0]), key) for arm in points.values()]
        _seeds(axes, list(points), columns)
        axes.set_title(f"{words}, %", fontsize=9)
        axes.set_xlabel(study.curve.key, fontsize=8)
    return figure


def _seeds(axes: Any, places: Sequence[float], columns: Sequence[Sequence[float]]) -> None:
    """Runs as dots, those of one seed joined, and the mean over seeds as a thick line."""
    for line in zip(*columns, strict=True):
        axes.plot(places, line, color="#9bb4cc", linewidth=0.8, marker="o", markersize=3)
    means = [mean(column) for column in columns]
    axes.plot(places, means, color="#0b4f8a", linewidth=2, marker="_", markersize=14, markeredgewidth=2.5)


def _images(run: Planned) -> Image:
    """Of some classes: an image as it was, as encoders are trained on it, and a test image's variants."""
    splits = open_splits(run.experiment.data.model_copy(update={"cache": False}))
    variants = VariantSet(splits.test, splits.pools("test"), run.file.evaluate, run.experiment.views.size)
    assert isinstance(splits.train, Recomposed), "every run has a rho"
    rows = []
    for label in range(min(_CLASSES, len(splits.train.classes))):
        train = [index for index, own in enumerate(splits.train.labels) if own == label][:2]
        test = next(index for index in variants.usable if splits.test.labels[index] == label)
        rows.append(
            [
                splits.train.dataset[train[0]].image,
                *(splits.train[index].image for index in train),
                variants.image("original", test),
                *(variants.image(name, test) for name in _VARIANTS),
            ]
        )
    headers = ["as it was", "trained on", "another", "test", *_VARIANTS.values()]
    return view_grid(rows, headers, [[""] * len(headers)] * len(rows))


def _svg(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
