"""Differences between runs of the same seeds, with how sure they are, and the page that tells of them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from bgsweep.evaluation.bootstrap import Difference, crossed
from studies.background_shortcut.conduct import Judged
from studies.background_shortcut.plan import NONE, Planned, StudyFile, arms_of, curve_arm

Place = tuple[str, str, float]
"""Method, arm and rho."""
Found = Mapping[tuple[str, str, float, int], Judged]
"""What was measured, by method, arm, rho and seed."""

COLUMNS = ("original", "only_fg", "mixed_same", "mixed_rand", "bg_gap")
_TABLES = {
    "biased/knn": "kNN among the biased images",
    "biased/linear": "Linear probe on the biased images",
    "unbiased/knn": "kNN among unbiased images",
    "unbiased/linear": "Linear probe on unbiased images",
}


def by_run(runs: Sequence[Planned], values: Sequence[Judged]) -> Found:
    return {(run.method, run.arm, run.rho, run.seed): each for run, each in zip(runs, values, strict=True)}


def page(study: StudyFile, found: Found, said: str, figures: str) -> str:
    """The study's results in Markdown; every number is computed from ``found``.

    Args:
        said: how they were measured.
        figures: folder of what `figures.draw` draws, as seen from the page.
    """
    lines = [said, "", f"![images and their variants]({figures}/images.png)", ""]
    for rho in study.rhos:
        words = f"{rho:.0%} of the training images before their class's backgrounds" if rho else "No shortcut"
        lines += [f"## {words} (rho {rho:g})", "", f"![runs by arm]({figures}/rho_{rho:g}.svg)", ""]
        for table, head in _TABLES.items():
            lines += [f"### {head}", "", *_table(study, found, rho, table), ""]
    if curve_points(study):
        lines += [f"## {study.curve.method}: how often", "", f"![runs by probability]({figures}/curve.svg)", ""]
        for table in ("biased/knn", "unbiased/linear"):
            lines += [f"### {_TABLES[table]}", "", *_curve(study, found, table), ""]
    return "\n".join(lines)


def _names(table: str) -> dict[str, str]:
    """A table's columns: the values that they show, by their headers."""
    names = {name: f"{table}/{name}" for name in COLUMNS}
    return names | {"10 % labels": "unbiased/few_10"} if table == "unbiased/linear" else names


def others(study: StudyFile, method: str) -> list[str]:
    """The arms of a method that are compared with the reference, without those of the curve."""
    known = arms_of(study, method)
    return [arm for arm in (NONE, *study.arms) if arm in known and arm != study.reference]


def percent(found: Found, study: StudyFile, place: Place, key: str) -> list[float]:
    """A value of each seed, in percent."""
    return [100 * float(found[(*place, seed)][key].mean()) for seed in study.seeds]


def _table(study: StudyFile, found: Found, rho: float, table: str) -> list[str]:
    names = _names(table)
    rows = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for method in study.methods:
        for arm in (study.reference, *others(study, method)):
            cells = [_cell(study, found, (method, arm, rho), key) for key in names.values()]
            rows.append(f"| {method}, {arm} | {' | '.join(cells)} |")
    compared = [(method, arm, rho) for method in study.methods for arm in others(study, method)]
    least = [_found_mostly([difference(study, found, place, key) for place in compared]) for key in names.values()]
    return [*rows, f"| *found four times in five* | {' | '.join(least)} |"]


def _found_mostly(differences: Sequence[Difference]) -> str:
    """The true difference at which 80 % of such intervals leave zero out, in points; nothing if one has no interval."""
    half = [100 * (one.upper - one.lower) / 2 for one in differences]
    return f"{1.43 * median(half):.1f}" if np.isfinite(half).all() else ""  # 1.43 = (1.96 + 0.84) / 1.96


def difference(study: StudyFile, found: Found, place: Place, key: str) -> Difference:
    """From the arm that the study compares with, which is mostly no augmentation."""
    method, _, rho = place
    first, second = (
        np.stack([found[(method, arm, rho, seed)][key] for seed in study.seeds]) for arm in (study.reference, place[1])
    )
    return crossed(first, second)


def _cell(study: StudyFile, found: Found, place: Place, key: str) -> str:
    """Mean over seeds in percent, and the difference from the reference; bold where its interval leaves zero out."""
    text = f"{np.mean(percent(found, study, place, key)):.1f}"
    if place[1] == study.reference:
        return text
    one = difference(study, found, place, key)
    interval = f"[{100 * one.lower:+.1f}, {100 * one.upper:+.1f}]" if math.isfinite(one.lower) else "no interval"
    words = f"{100 * one.value:+.1f} {interval}"
    return f"{text} ({f'**{words}**' if one.significant else words})"


def curve_points(study: StudyFile) -> dict[float, str]:
    """The arms that make up the curve, by their probability; none if the study has no curve."""
    curve = study.curve
    if not curve.values or curve.method not in study.methods:
        return {}
    alone = {arm: values[curve.key] for arm, values in study.arms.items() if set(values) == {curve.key}}
    named = {value: arm for arm, value in alone.items() if isinstance(value, float)}  # a schedule is no point
    points = {0.0: NONE, **named, **{value: curve_arm(curve.key, value) for value in curve.values}}
    return {value: points[value] for value in sorted(points)}


def _curve(study: StudyFile, found: Found, table: str) -> list[str]:
    curve, rho, names = study.curve, study.rhos[0], _names(table)
    rows = [f"| {curve.key} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for value, arm in curve_points(study).items():
        cells = [_cell(study, found, (curve.method, arm, rho), key) for key in names.values()]
        rows.append(f"| {value:g} | {' | '.join(cells)} |")
    return rows


def write(out: Path, results: str) -> None:
    """Put the results into the study's page, below its marker; what stands above it is written by people."""
    marker = "<!-- results: written by `make study` -->"
    before = out.read_text(encoding="utf-8").partition(marker)[0] if out.exists() else ""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(f"{before}{marker}\n\n{results}", encoding="utf-8")
