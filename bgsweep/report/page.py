"""The HTML page of a sweep: its figures, and the reason for each figure that cannot be drawn."""

import base64
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import yaml

from bgsweep.config import SweepConfig, resolve
from bgsweep.config.evaluation import VARIANTS
from bgsweep.config.metric_names import shown_name
from bgsweep.data import Splits, open_splits
from bgsweep.errors import UserError
from bgsweep.evaluation.bootstrap import paired_seeds
from bgsweep.report import charts
from bgsweep.report.charts import BASELINE, BEST, UNTRAINED, shown
from bgsweep.report.findings import Findings, findings, unconditional
from bgsweep.report.history import Cost, Trial, cost_of
from bgsweep.report.images import gallery, variants_of
from bgsweep.report.statistics import TREND_TRIALS, Interval, difference, wilson

_ENCODERS = {
    "best": ("champion", BEST),
    "baseline": ("no augmentation", BASELINE),
    "untrained": ("untrained", UNTRAINED),
}
_PROBES = {"backgrounds": "kNN", "backgrounds_linear": "linear probe"}


@dataclass(frozen=True)
class SweepResults:
    """A sweep as plain values.

    Attributes:
        manifest: with ``result`` if the sweep has ended.
        wall_seconds: from the journal's first event to its last.
        tags, datasets: from the sweep's MLflow run.
        budget: what is spent of it, as text; empty without one.
        course: the hypervolume of the front after so many epochs of all trials; empty for one metric.
    """

    name: str
    manifest: Mapping[str, Any]
    trials: Sequence[Trial]
    wall_seconds: float
    tags: Mapping[str, str]
    datasets: Sequence[Mapping[str, Any]]
    budget: str = ""
    course: Sequence[tuple[int, float]] = ()

    @property
    def config(self) -> SweepConfig:
        """The sweep's file."""
        return resolve(dict(self.manifest["file"]))

    @property
    def searched(self) -> list[Trial]:
        """The trials of the search, without those that confirm others."""
        return [trial for trial in self.trials if trial.confirms is None]

    def findings(self) -> Findings:
        """Importance and effects of the parameters; takes some seconds."""
        return findings(self.config, self.searched)


def page(results: SweepResults, told: Findings | None = None) -> str:
    """One self-contained HTML page of a sweep; ``told``: its findings, if they are at hand."""
    file, trials = results.config, results.searched
    verdict = results.manifest.get("result") or {}
    figures: dict[str, charts.Figure] = {}
    notes: dict[str, str] = {}
    pictures = _pictures(file, verdict, notes)
    context = {
        "name": results.name,
        "file": file,
        "space": {key: "; ".join(map(_range, ones)) for key, ones in file.space.parameters.items()},
        "config": yaml.safe_dump(results.manifest["file"], sort_keys=False),
        "digest": results.manifest["digest"],
        "tags": results.tags,
        "datasets": results.datasets,
        "verdict": verdict,
        "variants": VARIANTS,
        "pictures": pictures,
        "trials": trials,
        "table": [_row(trial) for trial in results.trials],
        "comparison": _comparison(verdict, pictures["count"]),
        "seeds": _over_seeds(verdict, pictures["count"]),
        "trend_trials": TREND_TRIALS,
        "notes": notes,
        "metrics": " and ".join(map(shown_name, file.search.metrics)),
        "shown": shown,
        "budget": results.budget,
    }
    _bars(figures, verdict, pictures["count"])
    context["measured"] = _searched(figures, notes, file, trials, verdict, told or results.findings())
    if results.course:
        figures["course"] = charts.courses({"front": results.course}, "epochs of all trials", "hypervolume")
    context["cost"] = _cost(figures, results)
    return rendered("page.html", context, figures)


def _pictures(config: SweepConfig, verdict: Mapping[str, Any], notes: dict[str, str]) -> dict[str, Any]:
    """Examples and number of images of the variants, and views of the champion's training, if images can be read."""
    found: dict[str, Any] = {"variants": None, "count": None, "gallery": None}
    best = verdict.get("best")
    champion = config.with_values(best["params"]) if best else config
    try:
        splits: Splits = open_splits(champion.experiment.data)
        found["gallery"] = gallery(champion, splits)
        if splits.test.has_masks and best and best["metrics"]["backgrounds"]:
            found["variants"], found["count"] = variants_of(champion, splits)
    except UserError as error:
        notes["pictures"] = (
            f"The images cannot be read on the machine that made this page ({error}), so none are shown."
        )
    return found


def _bars(figures: dict[str, charts.Figure], verdict: Mapping[str, Any], count: int | None) -> None:
    for probe in _PROBES:
        groups = []
        for role, (label, color) in _ENCODERS.items():
            shares = (verdict.get(role) or {"metrics": {}})["metrics"].get(probe)
            if shares:
                intervals = _intervals(shares, count) if count else {}
                groups.append((label, color, shares, intervals))
        if groups:
            figures[probe] = charts.bars(groups, VARIANTS)


def _intervals(shares: Mapping[str, float], count: int) -> dict[str, Interval]:
    return {name: wilson(shares[name], count) for name in VARIANTS}


def _comparison(verdict: Mapping[str, Any], count: int | None) -> list[dict[str, Any]]:
    """Champion and baseline with intervals, one row for each value and probe; [] if one of them is missing."""
    best, baseline = verdict.get("best"), verdict.get("baseline")
    if not (best and baseline and count and best["metrics"]["backgrounds"]):
        return []
    rows = []
    for probe, label in _PROBES.items():
        values = [one["metrics"][probe] for one in (best, baseline)]
        spans = [_intervals(each, count) for each in values]
        for each, span in zip(values, spans, strict=True):
            rand, same = ((each[name], span[name]) for name in ("mixed_rand", "mixed_same"))
            span["bg_gap"] = difference(*rand, *same)
        for name in ("original", "only_fg", "mixed_same", "mixed_rand", "bg_gap"):
            ours, theirs = (each[name] for each in values)
            of_ours, of_theirs = (span[name] for span in spans)
            row = {"probe": label, "name": name, "best": ours, "baseline": theirs, "of_best": of_ours}
            row |= {"of_baseline": of_theirs, "difference": ours - theirs}
            rows.append(row | {"of_difference": difference(theirs, of_theirs, ours, of_ours)})
    return rows


def _over_seeds(verdict: Mapping[str, Any], count: int | None) -> list[dict[str, Any]]:
    """Champion and baseline over several seeds, one row for each value; [] for one seed.

    Intervals contain the uncertainty from the test images, as if the encoders were measured on independent images; for
    BG-Gap it is that of the first seed. None if the images cannot be counted or the seeds are too few.
    """
    best, baseline = ((verdict.get(role) or {}).get("seeds") for role in ("best", "baseline"))
    if not (best and baseline):
        return []
    rows = []
    gaps = {row["probe"]: row for row in _comparison(verdict, count) if row["name"] == "bg_gap"}
    for name, ours in best.items():
        if "/" in name:  # a metric without labels, which is no share
            continue
        theirs = baseline[name]
        value, of_images = ours["mean"] - theirs["mean"], None
        if name == "bg_gap" and "kNN" in gaps:
            low, high = gaps["kNN"]["of_difference"]
            middle = gaps["kNN"]["difference"]
            of_images = (value - (middle - low), value + (high - middle))
        elif count and name != "bg_gap":
            spans = [wilson(one["mean"], count) for one in (theirs, ours)]
            of_images = difference(theirs["mean"], spans[0], ours["mean"], spans[1])
        change = paired_seeds(theirs["values"], ours["values"], of_images)
        known = math.isfinite(change.lower)
        rows.append(
            {
                "name": shown_name(f"test_{name}"),
                "count": len(ours["values"]),
                "best": ours,
                "baseline": theirs,
                "difference": change.value,
            }
            | {"of_difference": (change.lower, change.upper) if known else None, "of_images": of_images is not None}
        )
    return rows


def _searched(
    figures: dict[str, charts.Figure],
    notes: dict[str, str],
    config: SweepConfig,
    trials: Sequence[Trial],
    verdict: Mapping[str, Any],
    told: Findings,
) -> dict[str, Any]:
    """Add the figures of the search; returns the values for the text beside them."""
    measures, epoch, count = told.measures, told.epoch, told.count
    trials = [trial for trial in trials if measures.metric in trial.last]
    plain = {key: ones[0] for key, ones in config.space.parameters.items() if len(ones) == 1}
    space = unconditional(config)
    if epoch is None or not any(space.keys() <= trial.params.keys() for trial in trials):
        notes["search"] = (
            "No trial with values of the space has reached its first evaluation of accuracy, so there is nothing to "
            "compare."
        )
        return {"epoch": None, "count": 0, "label": measures.label, "metric": measures.metric}
    champion = (verdict.get("confirmation") or {}).get("champion") or (verdict.get("best") or {"trial": ""})["trial"]
    varied = [key for key in plain if len({str(t.params[key]) for t in trials if key in t.params}) > 1]
    varied.sort(key=lambda key: not key.startswith("background."))
    for key in varied:
        having = [trial for trial in trials if key in trial.params]
        figures[f"against {key}"] = charts.against(key, plain[key], having, epoch, champion, measures)
    if len(space) < len(config.space.parameters):
        left_out = ", ".join(sorted(config.space.parameters.keys() - space.keys()))
        notes["conditional"] = (
            f"Not in the importances and the parallel coordinates, because not every trial has these keys: {left_out}."
        )
    if not told.importance:
        notes["importance"] = (
            f"{count} trials are too few to estimate which of {len(space)} parameters matters; it takes at least "
            f"{count + told.missing}. With fewer, the importance is mostly noise and is left out."
        )
    else:
        for name in measures.names:
            figures[f"importance {name}"] = charts.importances(told.importance[name])
    if measures.gap:
        figures["front"] = charts.front(trials, champion, measures)
    else:
        notes["gap"] = "BG-Gap was not measured during the search; set `evaluate.bg_gap: true` to measure it."
    figures["parallel"] = charts.parallel(space, trials, measures)
    figures["curves"] = charts.curves(trials, champion, measures)
    trends = [f"against {key}" for key in varied]
    return {"epoch": epoch, "count": count, "label": measures.label, "metric": measures.metric} | {
        "share": measures.share,
        "trends": trends,
        "names": measures.names,
        "sentences": {name: told.sentences(name) for name in told.effects},
    }


def _cost(figures: dict[str, charts.Figure], results: SweepResults) -> dict[str, Any]:
    cost = cost_of_sweep(results)
    figures["cost"] = charts.costs(cost)
    return asdict(cost) | {"spent": sum(cost.spent.values()), "saved": sum(cost.saved.values()), "trials": cost.spent}


def cost_of_sweep(results: SweepResults) -> Cost:
    """The cost of a sweep's trials."""
    config = results.config
    workers, search = config.experiment.workers, config.search
    cpus = workers.cpus if workers.count > 1 else search.cpus
    # Of older versions' sweeps it is not known whether their cluster had GPUs.
    gpus = results.manifest.get("budget", {}).get("gpus", workers.count * config.gpus_of_process(available=False))
    return cost_of(
        results.trials, results.wall_seconds, config.experiment.training.epochs, (workers.count * cpus, gpus)
    )


def _row(trial: Trial) -> dict[str, Any]:
    return {"trial": trial, "params": {key: shown(value) for key, value in trial.params.items()}}


def _range(one: Any) -> str:
    """A distribution as text."""
    only = "".join(f", where {key} is {' or '.join(map(str, values))}" for key, values in one.when.items())
    if one.bounds is None:
        return "one of " + ", ".join(map(str, one.options)) + only
    kind = " (log)" if one.loguniform else f", step {one.quniform[2]:g}" if one.quniform else ""
    return f"{one.bounds[0]:g} to {one.bounds[1]:g}{kind}{only}"


def rendered(template: str, context: dict[str, Any], figures: dict[str, charts.Figure]) -> str:
    """A page that needs no network: a template of this room, with its figures, style and scripts."""
    from plotly.offline import get_plotlyjs

    here = Path(str(resources.files("bgsweep.report")))
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=jinja2.FileSystemLoader(here)
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}"
    environment.filters["hours"] = lambda value: f"{value:.1f} hours" if value >= 2 else f"{60 * value:.0f} minutes"
    environment.filters["signed"] = lambda value: f"{100 * value:+.1f}"
    script = json.dumps(figures).replace("</", "<\\/")
    return environment.get_template(template).render(
        context,
        figures=figures,
        data=script,
        plotly=base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode(),
        script=(here / "page.js").read_text(encoding="utf-8"),
        style=(here / "page.css").read_text(encoding="utf-8"),
    )
