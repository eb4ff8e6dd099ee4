"""The page's figures for plotly.js; the page's script sets the colours that depend on light or dark mode."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bgsweep.config import Distribution
from bgsweep.report import dominance
from bgsweep.report.history import Cost, Metrics, Trial
from bgsweep.report.statistics import Interval, Trend, fences, trend

Figure = dict[str, Any]

BEST, BASELINE, UNTRAINED, OTHER = "#f0457f", "#3f88d9", "#8a9099", "#8d78c9"
ROLES = {"best": ("champion", BEST), "baseline": ("no background augmentation", BASELINE)}
_POINTS = 8_000  # of a figure's curves: a page of 1,000 trials must open, and no screen shows more
SERIES = (BEST, BASELINE, "#3aa876", OTHER, "#d98e3f", UNTRAINED)
_SCALE = [[0, "#3f88d9"], [0.5, "#9a78cf"], [1, "#f0457f"]]


@dataclass(frozen=True)
class Measures:
    """The metrics by which trials are compared, with labels: the online accuracy, and BG-Gap if it was measured.

    Without classes it is another metric, whose `sign` is -1 if lower is better, and which is no share.
    """

    metric: str
    gap: str | None
    label: str
    sign: int = 1
    share: bool = True

    @property
    def precise(self) -> str:
        """The format of a value."""
        return ".1%" if self.share else ".4g"

    @property
    def rough(self) -> str:
        """The format of an axis."""
        return ".0%" if self.share else ".3g"

    @property
    def names(self) -> dict[str, str]:
        """Labels of the metrics by name."""
        return {self.metric: self.label} | ({self.gap: "BG-Gap"} if self.gap else {})


def bars(
    groups: Sequence[tuple[str, str, Mapping[str, float], Mapping[str, Interval]]], names: Sequence[str]
) -> Figure:
    """Bar chart of accuracy on each background variant, one bar per encoder: label, colour, shares, intervals."""
    data = []
    for label, color, shares, intervals in groups:
        trace: Figure = {"type": "bar", "name": label, "x": list(names), "y": [shares[name] for name in names]}
        trace |= {"marker": {"color": color}, "hovertemplate": "%{x}: %{y:.1%}<extra>" + label + "</extra>"}
        if intervals:
            up = [intervals[name][1] - shares[name] for name in names]
            down = [shares[name] - intervals[name][0] for name in names]
            trace["error_y"] = {"array": up, "arrayminus": down, "symmetric": False, "thickness": 1.2, "width": 3}
        data.append(trace)
    margin = {"l": 48, "r": 8, "t": 36, "b": 28}
    axes = {"xaxis": {"automargin": True}, "yaxis": {"tickformat": ".0%", "rangemode": "tozero"}}
    return {"data": data, "layout": {"barmode": "group", "margin": margin, **axes}, "height": 320}


def against(
    key: str, one: Distribution, trials: Sequence[Trial], epoch: int, champion: str, measures: Measures
) -> Figure:
    """Each metric at one epoch against one parameter, one plot above the other; numeric parameters with a trend."""
    log = one.loguniform is not None
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {
        "showlegend": False,
        "hovermode": "closest",
        "margin": {"l": 58, "r": 12, "t": 8, "b": 44},
    }
    measured = sorted((trial for trial in trials if epoch in trial.curve), key=lambda one: _stands_out(one, champion))
    count = len(measures.names)
    below = {"anchor": f"y{count if count > 1 else ''}"}
    tried = [trial.params[key] for trial in measured]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in tried)
    kind, x = ("log" if log else "linear", tried) if numbers else ("category", [str(value) for value in tried])
    layout["xaxis"] = {"title": {"text": key}, "type": kind, **below}
    for position, (name, label) in enumerate(measures.names.items()):
        axis = f"y{position + 1 if position else ''}"
        y = [trial.curve[epoch][name] for trial in measured]
        words = [f"{trial.id} ({trial.status})" for trial in measured]
        seen = {
            "text": words,
            "hovertemplate": "%{text}<br>"
            + key
            + (" %{x:.4g}<br>" if numbers else " %{x}<br>")
            + label
            + f" %{{y:{measures.precise}}}<extra></extra>",
        }
        data.append({"x": x, "y": y, "yaxis": axis, "mode": "markers", "marker": _marks(measured, champion)} | seen)
        curve = trend(tried, y, log) if numbers else None
        data += _trend_lines(curve, axis) if curve is not None else []
        bottom = 1 - (position + 1) / count + (0.06 if position < count - 1 else 0)
        layout[axis.replace("y", "yaxis")] = {
            "title": {"text": label},
            "domain": [bottom, 1 - position / count],
            "tickformat": measures.rough,
        }
    return {"data": data, "layout": layout, "height": 200 + 150 * count}


def _marks(trials: Sequence[Trial], champion: str) -> Figure:
    """Plotly's markers: those of the trials that stand out are larger."""
    outstanding = [_stands_out(trial, champion) for trial in trials]
    return {
        "color": [_color(trial, champion) for trial in trials],
        "size": [11 if one else 8 for one in outstanding],
        "opacity": [1 if one else 0.6 for one in outstanding],
    }


def _trend_lines(curve: Trend, axis: str) -> list[Figure]:
    """A trend's band and, above it, its mean."""
    band = np.concatenate([curve.high, curve.low[::-1]]).tolist()
    around = np.concatenate([curve.x, curve.x[::-1]]).tolist()
    common = {"yaxis": axis, "hoverinfo": "skip", "mode": "lines"}
    fill = {"fill": "toself", "fillcolor": "rgba(141,120,201,0.22)", "line": {"width": 0}}
    line = {"line": {"color": "ink", "width": 2}}
    return [
        {"x": around, "y": band} | common | fill,
        {"x": curve.x.tolist(), "y": curve.mean.tolist()} | common | line,
    ]


def importances(found: Mapping[str, tuple[float, Interval]]) -> Figure:
    """Share of the variance between trials that each parameter explains alone, with resampling intervals."""
    keys = sorted(found, key=lambda key: found[key][0])
    values = [found[key][0] for key in keys]
    up = [found[key][1][1] - found[key][0] for key in keys]
    down = [found[key][0] - found[key][1][0] for key in keys]
    spread = {"array": up, "arrayminus": down, "symmetric": False, "thickness": 1.2, "width": 3}
    trace = {"type": "bar", "orientation": "h", "x": values, "y": keys, "error_x": spread, "marker": {"color": OTHER}}
    trace["hovertemplate"] = "%{y}: %{x:.0%}<extra></extra>"
    axes = {"xaxis": {"tickformat": ".0%", "rangemode": "tozero"}, "yaxis": {"automargin": True}}
    margin = {"margin": {"l": 8, "r": 12, "t": 8, "b": 32}}
    return {"data": [trace], "layout": {**axes, **margin}, "height": 90 + 34 * len(keys)}


def front(trials: Sequence[Trial], champion: str, measures: Measures) -> Figure:
    """Accuracy against BG-Gap at the end of each trial; the line joins the Pareto front."""
    assert measures.gap is not None
    gap = measures.gap
    data: list[Figure] = []
    ended = [trial for trial in trials if trial.status == "completed"]
    best = dominance.front([(-trial.last[gap], trial.last[measures.metric]) for trial in ended])
    line = {"color": OTHER, "width": 2, "shape": "hv"}
    along = sorted((ended[index].last for index in best), key=lambda last: last[gap])
    data.append(
        {"x": [each[gap] for each in along], "y": [each[measures.metric] for each in along], "mode": "lines"}
        | {"line": line, "name": "Pareto front", "hoverinfo": "skip"}
    )
    kinds = {"completed": "circle", "stopped": "circle-open"}
    rest = [trial for trial in trials if not _stands_out(trial, champion)]
    groups = [(status, OTHER, [trial for trial in rest if trial.status == status]) for status in kinds]
    groups += [
        (name, color, [one for one in trials if _color(one, champion) == color]) for name, color in ROLES.values()
    ]
    for name, color, shown in groups:
        shown = [trial for trial in shown if trial.status in kinds]
        marks = {
            "symbol": [kinds[trial.status] for trial in shown],
            "size": 9 if color == OTHER else 13,
            "color": color,
        }
        words = [f"{trial.id}, epoch {trial.epochs}<br>{_params(trial)}" for trial in shown]
        seen = "%{text}<br>BG-Gap %{x:.1%}<br>" + measures.label + " %{y:.1%}<extra></extra>"
        data.append(
            {"x": [trial.last[gap] for trial in shown], "y": [trial.last[measures.metric] for trial in shown]}
            | {"mode": "markers", "marker": marks, "text": words, "hovertemplate": seen, "name": name}
        )
    axes = {
        "xaxis": {"title": {"text": "BG-Gap (less is better)"}, "tickformat": ".0%"},
        "yaxis": {"title": {"text": measures.label}, "tickformat": ".0%"},
    }
    return {"data": data, "layout": {**axes, "margin": {"l": 58, "r": 12, "t": 36, "b": 44}}, "height": 400}


def parallel(space: Mapping[str, Distribution], trials: Sequence[Trial], measures: Measures) -> Figure:
    """Parallel coordinates of all trials and parameters; the page's slider hides all but the best, which come first."""
    whole = (trial for trial in trials if space.keys() <= trial.params.keys())
    shown = sorted(whole, key=lambda trial: -measures.sign * trial.last[measures.metric])
    axes = [_axis(key, one, [trial.params[key] for trial in shown]) for key, one in space.items()]
    for name, label in measures.names.items():
        sign = measures.sign if name == measures.metric else -1
        axes.append(_clipped(label, [trial.last[name] for trial in shown], sign, measures.precise))
    values = [trial.last[measures.metric] for trial in shown]
    low, high = fences(values)
    line = {"color": values, "colorscale": _SCALE, "cmin": low, "cmax": high}
    trace = {"type": "parcoords", "dimensions": axes, "line": line, "labelangle": -12 if len(axes) > 5 else 0}
    words = [f"{trial.id} ({trial.status}, epoch {trial.epochs}): {_params(trial)}" for trial in shown]
    words = [f"{word}, {measures.label} {value:{measures.precise}}" for word, value in zip(words, values, strict=True)]
    margin = {"margin": {"l": 70, "r": 70, "t": 60, "b": 24}}
    return {"data": [trace], "layout": margin, "height": 420, "words": words}


def curves(trials: Sequence[Trial], champion: str, measures: Measures) -> Figure:
    """Online metrics of each epoch; a cross marks a trial that the scheduler stopped."""
    groups: dict[tuple[str, str, float], list[Trial]] = {}
    for trial in trials:
        known = trial.id == champion or trial.fixed == "baseline"
        name = ROLES["best" if trial.id == champion else "baseline"][0] if known else "other trials"
        groups.setdefault((name, _color(trial, champion), 3 if known else 1), []).append(trial)
    data = []
    for (name, color, width), members in sorted(groups.items(), key=lambda group: group[0][2]):
        x: list[int | None] = []
        y: list[float | None] = []
        words: list[str] = []
        points = max(2, _POINTS // len(members))
        for trial in members:
            curve = _thinned(trial.curve, points)
            x += [*curve, None]
            y += [*(round(each[measures.metric], 4) for each in curve.values()), None]
            words += [f"{trial.id} ({trial.status})"] * (len(curve) + 1)
        seen = f"%{{text}}<br>epoch %{{x}}: %{{y:{measures.precise}}}<extra></extra>"
        line = {"color": color, "width": width}
        data.append(
            {"x": x, "y": y, "text": words, "mode": "lines+markers", "line": line, "marker": {"size": 3 + width}}
            | {"name": name, "hovertemplate": seen, "opacity": 1 if width > 1 else 0.55}
        )
    stopped = [trial for trial in trials if trial.status == "stopped"]
    data.append(
        {"x": [trial.epochs for trial in stopped], "y": [trial.last[measures.metric] for trial in stopped]}
        | {"mode": "markers", "marker": {"symbol": "x", "size": 8, "color": UNTRAINED}, "name": "stopped early"}
        | {"text": [trial.id for trial in stopped], "hovertemplate": "%{text} stopped at epoch %{x}<extra></extra>"}
    )
    value = {"title": {"text": measures.label}, "tickformat": measures.rough}
    axes = {"xaxis": {"title": {"text": "epoch"}}, "yaxis": value}
    layout = {**axes, "hovermode": "closest", "margin": {"l": 58, "r": 12, "t": 36, "b": 44}}
    return {"data": data, "layout": layout, "height": 400}


def courses(lines: Mapping[str, Sequence[tuple[float, float]]], title: str, label: str, share: bool = True) -> Figure:
    """The best value so far of several sweeps, as steps: for each name the points (x, value)."""
    precise, rough = (".1%", ".0%") if share else (".4g", ".3g")
    data: list[Figure] = []
    for number, (name, points) in enumerate(lines.items()):
        line = {"color": SERIES[number % len(SERIES)], "width": 2, "shape": "hv"}
        trace: Figure = {"x": [x for x, _ in points], "y": [y for _, y in points], "mode": "lines", "line": line}
        data.append(trace | {"name": name, "hovertemplate": f"%{{x:.4g}}: %{{y:{precise}}}<extra>{name}</extra>"})
    axes = {"xaxis": {"title": {"text": title}}, "yaxis": {"title": {"text": label}, "tickformat": rough}}
    return {"data": data, "layout": {**axes, "margin": {"l": 58, "r": 12, "t": 36, "b": 44}}, "height": 340}


def _thinned(curve: Mapping[int, Metrics], points: int) -> Mapping[int, Metrics]:
    """At most so many points of a curve, evenly spread, the last one among them."""
    if len(curve) <= points:
        return curve
    epochs = list(curve)
    chosen = {epochs[round(number * (len(epochs) - 1) / (points - 1))] for number in range(points)}
    return {epoch: each for epoch, each in curve.items() if epoch in chosen}


def costs(cost: Cost) -> Figure:
    """Cost of each trial, and above it the saving by early stopping."""
    names = list(cost.spent)
    saved = [cost.saved.get(name, 0.0) for name in names]
    parts = (("spent", list(cost.spent.values()), OTHER), ("saved by early stopping (estimate)", saved, "#c3c7cf"))
    data = [
        {"type": "bar", "name": name, "x": names, "y": values, "marker": {"color": color}}
        | {"hovertemplate": "%{x}: %{y:.3g} " + cost.unit + "<extra>" + name + "</extra>"}
        for name, values, color in parts
    ]
    layout = {
        "barmode": "stack",
        "yaxis": {"title": {"text": cost.unit}},
        "margin": {"l": 58, "r": 12, "t": 36, "b": 36},
    }
    return {"data": data, "layout": layout, "height": 280}


def _color(trial: Trial, champion: str | None = None) -> str:
    return BEST if trial.id == champion else BASELINE if trial.fixed == "baseline" else OTHER


def _stands_out(trial: Trial, champion: str) -> bool:
    return _color(trial, champion) != OTHER


def _params(trial: Trial) -> str:
    return ", ".join(f"{key} {shown(value)}" for key, value in trial.params.items())


def shown(value: Any) -> str:
    """A parameter's value for display."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _axis(key: str, one: Distribution, values: Sequence[Any]) -> dict[str, Any]:
    """A parameter's axis. Plotly's parallel coordinates have no log axes, so logarithms are drawn, with ticks."""
    label = key.removeprefix("background.")
    if one.bounds is None:
        options = sorted({str(value) for value in values})
        positions = list(range(len(options)))
        drawn = [options.index(str(value)) for value in values]
        return {"label": label, "values": drawn, "tickvals": positions, "ticktext": options}
    low, high = min(one.bounds[0], *values), max(one.bounds[1], *values)
    if one.loguniform is None:
        return {"label": label, "values": list(values), "range": [low, high]}
    ticks = np.geomspace(low, high, 5).tolist()
    return {
        "label": f"{label} (log)",
        "values": np.log10(values).tolist(),
        "range": np.log10([low, high]).tolist(),
        "tickvals": np.log10(ticks).tolist(),
        "ticktext": [f"{tick:.2g}" for tick in ticks],
    }


def _clipped(label: str, values: Sequence[float], sign: int, form: str) -> dict[str, Any]:
    """A metric's axis, on which bad outliers are drawn at the end; otherwise one failed trial would squeeze all others.

    The best values are never clipped. ``sign``: 1 if higher is better, -1 if lower is; ``form``: of a value.
    """
    low, high = fences(values)
    low, high = (low, max(values)) if sign > 0 else (min(values), high)
    ticks = np.linspace(low, high, 5).tolist() if high > low else [low]
    words = [f"{tick:{form}}" for tick in ticks]
    if min(values) < low:
        words[0] = f"≤ {words[0]}"
    if max(values) > high:
        words[-1] = f"≥ {words[-1]}"
    span = [low, high] if high > low else [low - 0.01, low + 0.01]
    drawn = np.clip(values, low, high).tolist()
    return {"label": label, "values": drawn, "range": span, "tickvals": ticks, "ticktext": words}
