"""The HTML page that compares sweeps: their champions on the same images, and the course of each search."""

from collections.abc import Mapping, Sequence
from typing import Any

from bgsweep.config import SweepConfig, resolve
from bgsweep.report import charts
from bgsweep.report.charts import shown
from bgsweep.report.findings import measures_of
from bgsweep.report.page import SweepResults, cost_of_sweep, rendered

Course = Sequence[tuple[float, float, float]]
"""The best value so far: seconds since the sweep's start, epochs of all trials together, value."""


def sweeps_page(
    sweeps: Sequence[SweepResults],
    states: Sequence[str],
    courses: Sequence[Course],
    paired: Mapping[str, Any] | None,
    unpaired: str = "",
) -> str:
    """One self-contained HTML page.

    Args:
        courses: of each sweep, in the metric of `measures_of`.
        paired: the champions of the sweeps that have ended, compared as by `bgsweep compare`.
        unpaired: why they are not.
    """
    configs = [resolve(dict(one.manifest["file"])) for one in sweeps]
    names = [one.name for one in sweeps]
    measures = [measures_of(config, one.trials) for config, one in zip(configs, sweeps, strict=True)]
    notes = _notes(configs, {each.label for each in measures})
    figures: dict[str, charts.Figure] = {}
    if any(courses):
        label = measures[0].label
        by_epochs = {
            name: [(epochs, value) for _, epochs, value in course] for name, course in zip(names, courses, strict=True)
        }
        by_hours = {
            name: [(time / 3600, value) for time, _, value in course]
            for name, course in zip(names, courses, strict=True)
        }
        figures["by_epochs"] = charts.courses(by_epochs, "epochs of all trials", label)
        figures["by_hours"] = charts.courses(by_hours, "hours", label)
    rows = [_row(*each) for each in zip(sweeps, configs, states, strict=True)]
    context = {
        "name": " against ".join(names),
        "sweeps": rows,
        "ended": [row["name"] for row in rows if row["best"]],
        "paired": paired,
        "unpaired": unpaired,
        "notes": notes,
        "label": measures[0].label,
        "shown": shown,
    }
    return rendered("sweeps.html", context, figures)


def _row(results: SweepResults, config: SweepConfig, state: str) -> dict[str, Any]:
    cost = cost_of_sweep(config, results)
    return {
        "name": results.name,
        "state": state,
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
