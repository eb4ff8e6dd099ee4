"""The HTML page that compares encoders on the same images, and the courses of the searches that found them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bgsweep.config import SweepConfig
from bgsweep.report import charts
from bgsweep.report.audit_page import short
from bgsweep.report.charts import shown
from bgsweep.report.findings import measures_of
from bgsweep.report.page import SweepResults, cost_of_sweep, rendered

Course = Sequence[tuple[float, float, float]]
"""The best value so far: seconds since the sweep's start, epochs of all trials together, value."""


@dataclass(frozen=True)
class Search:
    """A sweep, its state, and its course in the metric of `measures_of`."""

    results: SweepResults
    state: str
    course: Course


@dataclass(frozen=True)
class Compared:
    """Encoders measured on the same images, as JSON (`workflows.compare.compare` describes it); else `why` not."""

    models: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    bootstrap: str = ""
    protocols: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    settings: dict[str, list[Any]] = field(default_factory=dict)
    why: str = ""


def compare_page(found: Compared, searches: Sequence[Search], pictures: Sequence[Mapping[str, Any]] = ()) -> str:
    """One self-contained HTML page.

    Args:
        pictures: for each model but the first: `value`, by which it is right, and of the images that the first model
            alone and that this one alone gets right their `counts` and some inline `images`.
    """
    configs = [one.results.config for one in searches]
    measures = [measures_of(config, one.results.trials) for config, one in zip(configs, searches, strict=True)]
    figures: dict[str, charts.Figure] = {}
    names = [short(one["name"]) for one in found.models]
    if differences := _differences(names, found.rows):
        figures["differences"] = differences
    if any(one.course for one in searches):
        label, share = measures[0].label, measures[0].share
        courses = {one.results.name: one.course for one in searches}
        by_epochs = {name: [(epochs, value) for _, epochs, value in one] for name, one in courses.items()}
        by_hours = {name: [(time / 3600, value) for time, _, value in one] for name, one in courses.items()}
        figures["by_epochs"] = charts.courses(by_epochs, "epochs of all trials", label, share)
        figures["by_hours"] = charts.courses(by_hours, "hours", label, share)
    context = {
        "name": " against ".join(names or [one.results.name for one in searches]),
        "names": names,
        "found": found,
        "pictures": pictures,
        "searches": [_row(*each) for each in zip(searches, configs, strict=True)],
        "notes": _notes(configs, {each.label for each in measures}),
        "label": measures[0].label if measures else "",
        "shown": shown,
    }
    return rendered("compare.html", context, figures)


def _differences(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> charts.Figure | None:
    """Differences from the first model with their intervals, a line for each value; None where there are none."""
    data: list[charts.Figure] = []
    for place, name in enumerate(names[1:]):
        found = [(f"{row['name']} ({row['evaluator']})", row["differences"][place]) for row in reversed(rows)]
        known = [(label, one) for label, one in found if one["lower"] is not None]
        spread = {
            "array": [one["upper"] - one["value"] for _, one in known],
            "arrayminus": [one["value"] - one["lower"] for _, one in known],
        }
        trace: charts.Figure = {"x": [one["value"] for _, one in known], "y": [label for label, _ in known]}
        trace |= {"mode": "markers", "name": name, "hovertemplate": "%{y}: %{x:+.1%}<extra>" + name + "</extra>"}
        trace |= {"error_x": {**spread, "symmetric": False, "thickness": 1.2, "width": 3}}
        data.append(trace | {"marker": {"color": charts.SERIES[(place + 1) % len(charts.SERIES)], "size": 9}})
    lines = {label for trace in data for label in trace["y"]}
    if not lines:
        return None
    axes = {
        "xaxis": {"title": {"text": f"difference from {names[0]}"}, "tickformat": "+.1%"},
        "yaxis": {"automargin": True},
    }
    top = 16 + 22 * (len(data) > 1) * len(data)
    layout = {**axes, "showlegend": len(data) > 1, "margin": {"l": 8, "r": 12, "t": top, "b": 44}}
    return {"data": data, "layout": layout, "height": 60 + top + 22 * len(lines)}


def _row(search: Search, config: SweepConfig) -> dict[str, Any]:
    results = search.results
    cost = cost_of_sweep(results)
    return {
        "name": results.name,
        "state": search.state,
        "trials": len(results.trials),
        "method": config.experiment.method.name,
        "encoder": config.experiment.encoder.name,
        "best": (results.manifest.get("result") or {}).get("best"),
        "cost": sum(cost.spent.values()),
        "unit": cost.unit,
    }


def _notes(configs: Sequence[SweepConfig], labels: set[str]) -> list[str]:
    """The differences that keep the courses from being comparable."""
    notes = []
    if len(labels) > 1:
        notes.append(f"The sweeps measured different values during the search: {', '.join(sorted(labels))}.")
    if len({config.experiment.data.model_dump_json() for config in configs}) > 1:
        notes.append("The sweeps trained on different data, or read it differently: their courses are not comparable.")
    if len({config.experiment.training.epochs for config in configs}) > 1:
        notes.append("Their trials have different numbers of epochs.")
    return notes
