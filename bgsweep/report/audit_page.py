"""The HTML page of an audit: encoders side by side, a section for each measure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bgsweep.report import charts
from bgsweep.report.page import rendered

_PLAIN = "number"
LABELS: dict[str, tuple[str, str]] = {
    "rfs": ("relative foreground sensitivity (-1 to 1)", _PLAIN),
    "foreground": ("right under noise in the foreground", "share"),
    "background": ("right under noise in the background", "share"),
    "background_robustness": ("background robustness (1 is best)", _PLAIN),
    "centre_bias": ("centre bias (0 is best)", _PLAIN),
    "size_bias": ("size bias (0 is best)", _PLAIN),
    "gap": ("lost by the watermark", "share"),
    "plain": ("right as it is", "share"),
    "watermarked": ("right with the watermark", "share"),
    "worst_group": ("accuracy of the worst group", "share"),
    "all": ("accuracy of all", "share"),
    "foreground_focus": ("foreground focus (1: as by area)", _PLAIN),
    "inside": ("share inside the mask", "share"),
    "attention_focus": ("focus of the attention (1: as by area)", _PLAIN),
    "attention_inside": ("share inside the mask", "share"),
    "iou": ("intersection over union", "share"),
    "position_iou": ("the same of the average mask", "share"),
    "bg_share": ("variance by backgrounds", "share"),
    "fg_share": ("variance by foregrounds", "share"),
    "challenge": ("right before all backgrounds", "share"),
    "right": ("right before a background", "share"),
    "towards_background": ("nearer to the background's image", "share"),
    "kept": ("nearest five that stay", "share"),
}
"""Names of values for a reader, and if they are shares, shown in per cent, or plain numbers."""


def audit_page(record: Mapping[str, Any]) -> str:
    """One self-contained HTML page from what `workflows.audit` recorded."""
    models = [short(one["model"]) for one in record["models"]]
    figures: dict[str, charts.Figure] = {}
    for measure in record["measures"]:
        details = [one["details"] for one in measure["models"]]
        if measure["name"] == "variants":
            _variants(figures, models, measure["rows"], record["labelled"])
        if measure["name"] == "noise" and any(details):
            figures["noise"] = _curves(models, details)
    context = {
        "name": "Audit",
        "record": record,
        "models": models,
        "colors": charts.SERIES,
        "label": lambda name: LABELS.get(name, (name.replace("_", " "), "share"))[0],
        "shown": shown,
        "limits": limits,
    }
    return rendered("audit.html", context, figures)


def shown(name: str, value: float | None) -> str:
    """A value as text."""
    if value is None:
        return "-"
    return f"{value:.2f}" if _unit(name) == _PLAIN else f"{100 * value:.1f} %"


def limits(name: str, one: Mapping[str, float | None]) -> str:
    """An interval as text."""
    lower, upper = one["lower"], one["upper"]
    if lower is None or upper is None:
        return ""
    plain = _unit(name) == _PLAIN
    return f"[{lower:.2f}, {upper:.2f}]" if plain else f"[{100 * lower:.1f}, {100 * upper:.1f}]"


def _unit(name: str) -> str:
    return LABELS.get(name, ("", "share"))[1]


def short(model: str) -> str:
    """A model's name without the folders of its file, or the last two of a checkpoint's."""
    network, found, file = model.partition("=")
    if found:
        return f"{network}={Path(file).name}"
    return model if ":" in model else "/".join(Path(model).parts[-2:])


def _variants(
    figures: dict[str, charts.Figure], models: Sequence[str], rows: Sequence[Mapping[str, Any]], labelled: bool
) -> None:
    """Bars of accuracy on each variant, for each probe."""
    for probe in ("linear", "knn") if labelled else ("found",):
        by_name = {
            row["name"].removeprefix(f"{probe}/"): row["models"] for row in rows if row["name"].startswith(probe)
        }
        names = [name for name in by_name if name != "bg_gap"]
        groups = []
        for number, model in enumerate(models):
            cells = {name: by_name[name][number] for name in names}
            if not cells or any(cell is None or cell["lower"] is None for cell in cells.values()):
                continue
            values = {name: cell["value"] for name, cell in cells.items()}
            spans = {name: (cell["lower"], cell["upper"]) for name, cell in cells.items()}
            groups.append((model, charts.SERIES[number % len(charts.SERIES)], values, spans))
        if groups:
            figures[f"variants {probe}"] = charts.bars(groups, names)


def _curves(models: Sequence[str], details: Sequence[Mapping[str, Any]]) -> charts.Figure:
    """Accuracy against the noise's norm; dashed where the noise is in the background."""
    data = []
    for number, (model, one) in enumerate(zip(models, details, strict=True)):
        for region, dash in (("foreground", "solid"), ("background", "dash")) if one else ():
            line = {"color": charts.SERIES[number % len(charts.SERIES)], "width": 2, "dash": dash}
            trace: charts.Figure = {
                "x": one["norms"],
                "y": one["curves"][region],
                "mode": "lines+markers",
                "line": line,
            }
            name = f"{model}, {region}" if len(models) > 1 else f"noise in the {region}"
            data.append(trace | {"name": name, "hovertemplate": "%{x:.0f}: %{y:.1%}<extra>" + name + "</extra>"})
    score = next(one["score"] for one in details if one)
    axes = {
        "xaxis": {"title": {"text": "L2 norm of the noise"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": score}, "tickformat": ".0%", "rangemode": "tozero"},
    }
    top = 36 + 14 * len(data)
    return {"data": data, "layout": {**axes, "margin": {"l": 58, "r": 12, "t": top, "b": 44}}, "height": 300 + top}
