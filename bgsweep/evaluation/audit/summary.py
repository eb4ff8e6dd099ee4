"""An audit's values with intervals, encoders beside one another, and the verdict in a sentence."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bgsweep.evaluation.audit.outcome import Outcome
from bgsweep.evaluation.bootstrap import Difference, one_sample, paired
from bgsweep.evaluation.evaluator import PerImageMetric

RESAMPLINGS = 10_000
_SIGNED = ("gap", "rfs", "bias")  # endings of names of differences


def interval(value: PerImageMetric, seed: int = 0) -> Difference:
    """A value with its 95 % interval over images."""
    return one_sample(value, RESAMPLINGS, seed, signed=value.name.endswith(_SIGNED))


def table(outcomes: Sequence[Outcome], seed: int = 0) -> list[dict[str, Any]]:
    """A row for each value of a measure: its name, its number of images, and for each encoder value and interval.

    All encoders but the first have the difference from it, too.

    Args:
        outcomes: of one measure, one for each encoder; those without values give None.
    """
    names = list(dict.fromkeys(one.name for outcome in outcomes if outcome.found for one in outcome.found.values))
    by_name = [{one.name: one for one in outcome.found.values} if outcome.found else {} for outcome in outcomes]
    rows = []
    for name in names:
        values = [each.get(name) for each in by_name]
        taken = max(len(one.hits) for one in values if one is not None)
        rows.append({"name": name, "images": taken, "models": _row(values, seed)})
    return rows


def _row(values: Sequence[PerImageMetric | None], seed: int) -> list[dict[str, Any] | None]:
    first, row = values[0], list[dict[str, Any] | None]()
    for number, value in enumerate(values):
        if value is None:
            row.append(None)
            continue
        cell: dict[str, Any] = _plain(interval(value, seed)) | {"images": int((value.counted != 0).sum())}
        if number and first is not None and len(first.hits) == len(value.hits):
            difference = paired(first, value, RESAMPLINGS, seed)
            cell["difference"] = _plain(difference) | {"significant": difference.significant}
        row.append(cell)
    return row


def _plain(found: Difference) -> dict[str, float | None]:
    values = {"value": found.value, "lower": found.lower, "upper": found.upper}
    return {key: float(value) if math.isfinite(value) else None for key, value in values.items()}


def verdict(rows: Mapping[str, Sequence[Mapping[str, Any]]], model: int) -> str:
    """One sentence on an encoder, with the interval; BG-Gap, or without classes the shares of variance.

    Args:
        rows: `table` of each measure.
        model: number of the encoder in them.
    """
    gap = _cell(rows, "variants", "linear/bg_gap", model)
    if gap is not None:
        leans = "leans on backgrounds" if gap["lower"] > 0 else "was not shown to lean on backgrounds"
        lost = f"where the background is of another class instead of the same, accuracy is {_points(gap)}"
        return f"{leans}: {lost} ({_limits(gap)})."
    behind, before = (_cell(rows, "composites", f"{kind}_share", model) for kind in ("bg", "fg"))
    if behind is not None and before is not None:
        follows = "follows backgrounds and foregrounds alike"
        if behind["lower"] > before["upper"]:
            follows = "follows backgrounds more than foregrounds"
        elif before["lower"] > behind["upper"]:
            follows = "follows foregrounds more than backgrounds"
        shares = [f"{100 * cell['value']:.0f} % ({_span(cell)})" for cell in (behind, before)]
        return f"{follows}: backgrounds explain {shares[0]} of its features' variance, foregrounds {shares[1]}."
    return "cannot be judged: neither BG-Gap nor the shares of variance were measured."


def _cell(
    rows: Mapping[str, Sequence[Mapping[str, Any]]], measure: str, name: str, model: int
) -> dict[str, Any] | None:
    for row in rows.get(measure, ()):
        cell: dict[str, Any] | None = row["models"][model]
        if row["name"] == name and cell is not None and cell["lower"] is not None:
            return cell
    return None


def _points(cell: Mapping[str, Any]) -> str:
    return f"{abs(100 * cell['value']):.1f} points {'lower' if cell['value'] >= 0 else 'higher'}"


def _limits(cell: Mapping[str, Any]) -> str:
    return f"BG-Gap {100 * cell['value']:.1f}, {_span(cell)}, {cell['images']} images"


def _span(cell: Mapping[str, Any]) -> str:
    return f"95 % interval {100 * cell['lower']:.1f} to {100 * cell['upper']:.1f}"
