"""Results as text for a person; the same results are what `--json` prints."""

import shlex
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bgsweep.config.evaluation import VARIANTS
from bgsweep.storage.uri import anywhere

_LINEAGE = {
    "sweep": "sweep",
    "trial": "trial",
    "digest": "config",
    "images_digest": "data",
    "masks_digest": "masks",
    "git_commit": "commit",
}
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def show_sweep(result: dict[str, Any]) -> str:
    """Trials, champion beside baseline and untrained encoder, and where everything is."""
    model = result["model"]
    lines = [
        _trials(result["trials"], [each["trial"] for each in result.get("pareto", ())]),
        _comparison(result),
        f"MLflow store   {result['tracking_uri']}",
        f"look at it     mlflow ui --backend-store-uri {shlex.quote(result['tracking_uri'])}",
        f"registered     {model['name']} version {model['version']}, alias {model['alias']}: {model['reason']}",
        f"load it        import mlflow; mlflow.set_tracking_uri({result['tracking_uri']!r}); "
        f'encoder = mlflow.pyfunc.load_model("models:/{model["name"]}@{model["alias"]}")',
    ]
    if not result["tracking_uri"].startswith("sqlite"):
        del lines[3]
    return "\n".join(lines)


def show_status(result: dict[str, Any]) -> str:
    """A line for each sweep; where there is only one, its trials too."""
    lines = []
    for sweep in result["sweeps"]:
        states = [trial["status"] for trial in sweep["trials"]]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        lines.append(f"{sweep['sweep']}  {_time(sweep['began'])}  {sweep['state']}  {counts or 'no trial yet'}")
    if len(lines) == 1:
        lines.append(_trials(result["sweeps"][0]["trials"]))
    return "\n".join(lines) or "no sweep in this store"


def show_plan(result: dict[str, Any]) -> str:
    """What was measured or given, and a line for each setting."""
    cost, rows = result["cost"], result["settings"]
    table = Table(title="Expected", title_justify="left", box=None, pad_edge=False)
    for name in ("", "wall time", "from", "to", "GPU-hours", "price", "in use %", "epochs", "whole trials"):
        table.add_column(name, justify="right" if name else "left")
    for row in rows:
        table.add_row(
            row["setting"],
            *(_duration(row[name]) for name in ("hours", "hours_low", "hours_high")),
            f"{row['gpu_hours']:.0f}" if row["gpu_hours"] >= 100 else f"{row['gpu_hours']:.3g}",
            "" if row["price"] is None else f"{row['price']:.2f}",
            f"{100 * row['utilisation']:.0f}",
            f"{row['epochs']:.0f}",
            f"{row['whole_trials']:.1f}",
        )
    each = f"{cost['epoch']:.3g} s an epoch"
    if cost["evaluation"]:
        each += f", {cost['evaluation']:.2g} s an evaluation"
    return f"{result['trials']} trials, {result['at_once']} at once, {each}\n{_text(table)}"


def _time(seconds: float) -> str:
    """With this machine's offset from UTC: results come from several machines."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="minutes")


def _duration(hours: float) -> str:
    minutes = hours * 60
    return f"{minutes * 60:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"


def show_submit(result: dict[str, Any]) -> str:
    """Where the sweep is and how to ask after it; after waiting, its result."""
    if "result" in result:
        return show_sweep(result["result"])
    name, address = result["sweep"], result["address"]
    return "\n".join(
        [
            f"submitted      {name} at {address}",
            f"passed on      {', '.join(result['passed_on']) or 'no variable of this environment'}",
            f"look at it     bgsweep status {name} --address {address}",
            f"its log        ray job logs --follow --address {address} {name}",
            f"end it         bgsweep stop {name} --address {address}",
        ]
    )


def show_stop(result: dict[str, Any]) -> str:
    return f"{result['sweep']} ends its trials; `{result['follow']}` shows how far it is"


def show_models(result: dict[str, Any]) -> str:
    """A table for each model: versions with aliases, numbers in percent, lineage; below it why each is what it is."""
    pages = []
    for model in result["models"]:
        table = Table(title=model["name"], title_justify="left", box=None, pad_edge=False)
        for name in ("version", "alias", "kNN %", "linear %", "gap %", *_LINEAGE.values(), "made"):
            table.add_column(name, justify="right" if name.endswith("%") else "left")
        for version in model["versions"]:
            numbers, lineage = version["numbers"], version["lineage"]
            table.add_row(
                str(version["version"]),
                ", ".join(version["aliases"]),
                *(_percent(numbers.get(f"test_{name}")) for name in ("knn_top1", "linear_top1", "bg_gap")),
                *(escape(lineage.get(key, "")[: 8 if key == "git_commit" else None]) for key in _LINEAGE),
                _time(version["created"]),
            )
        reasons = [f"{each['version']}  {each['reason']}" for each in model["versions"] if each["reason"]]
        pages.append("\n".join([_text(table), *reasons]))
    return "\n\n".join(pages) or "no registered model in this store"


def show_promote(result: dict[str, Any]) -> str:
    before = "nobody" if result["before"] is None else f"version {result['before']}"
    return f"{result['name']} version {result['version']} is now {result['alias']} (before: {before})"


def show_report(result: dict[str, Any]) -> str:
    return f"wrote {result['page']}: open it in a browser"


def show_policy(result: dict[str, Any]) -> str:
    return f"wrote {result['policy']}: the views of {result['trial']}"


def show_pretrain(result: dict[str, Any]) -> str:
    values = "  ".join(f"{name} {value:.4g}" for name, value in result["metrics"].items())
    return f"{values}\ncheckpoint  {result['checkpoint']}\nMLflow run  {result['run_id']} at {result['tracking_uri']}"


def show_evaluate(result: dict[str, Any]) -> str:
    if "results" in result:
        return _suite(result)
    head = f"kNN {_percent(result['knn_top1'])} %   linear {_percent(result['linear_top1'])} %"
    if not result["backgrounds"]:
        return head
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in (*VARIANTS, "bg_gap"):
        table.add_column(name, justify="right")
    for label, key in (("kNN", "backgrounds"), ("linear", "backgrounds_linear")):
        table.add_row(label, *(_percent(result[key][name]) for name in (*VARIANTS, "bg_gap")))
    return f"{head}\n\n{_text(table)}"


def _suite(result: dict[str, Any]) -> str:
    """A row a value, in percent, and below the table what each evaluator says of its protocol."""
    table = Table(box=None, pad_edge=False)
    for name in ("evaluator", "value"):
        table.add_column(name)
    table.add_column("%", justify="right")
    for evaluator, found in result["results"].items():
        for number, (name, value) in enumerate(found["values"].items()):
            table.add_row("" if number else evaluator, name, _percent(value))
    notes = [
        f"{evaluator}: " + "; ".join(f"{key} {value}" for key, value in found["protocol"].items())
        for evaluator, found in result["results"].items()
    ]
    origin = ", ".join(f"{key} {value}" for key, value in result["origin"].items())
    where = f"MLflow run  {result['run_id']} at {result['tracking_uri']}"
    return "\n".join([f"{result['model']} ({origin})", "", _text(table), *notes, "", where])


def show_compare(result: dict[str, Any]) -> str:
    """A row a value; behind every model but the first its difference with the interval, a star where it is sure."""
    table = Table(box=None, pad_edge=False)
    for name in ("evaluator", "value"):
        table.add_column(name)
    for letter in _LETTERS[: len(result["models"])]:
        table.add_column(f"{letter} %", justify="right")
        if letter != "A":
            table.add_column(f"{letter} - A", justify="right")
            table.add_column("95 % interval")
    before = None
    for row in result["rows"]:
        cells = [_percent(row["values"][0])]
        for value, found in zip(row["values"][1:], row["differences"], strict=True):
            interval = _interval(found["lower"], found["upper"])
            cells += [
                _percent(value),
                "" if found["value"] is None else f"{100 * found['value']:+.1f}",
                interval + (" *" if found["significant"] else ""),
            ]
        table.add_row("" if row["evaluator"] == before else row["evaluator"], row["name"], *map(escape, cells))
        before = row["evaluator"]
    names = [f"{letter}  {one['model']}" for letter, one in zip(_LETTERS, result["models"], strict=False)]
    return "\n".join([*names, "", _text(table), f"* zero lies outside the interval; {result['bootstrap']}"])


def _interval(lower: float | None, upper: float | None) -> str:
    return "none" if lower is None or upper is None else f"[{100 * lower:+.1f}, {100 * upper:+.1f}]"


def show_backgrounds_make(result: dict[str, Any]) -> str:
    return (
        f"wrote {result['out']}: {result['pictures_per_variant']} pictures in each of eight variants, "
        f"{len(result['classes'])} classes; {result['left_out']} photographs left out\n"
        f"look at {result['out']}/variants.png"
    )


def show_preview(result: dict[str, Any]) -> str:
    lines = [f"wrote {result['picture']} ({result['images']} images)"]
    for key, words in (("shares", "views"), ("last_shares", "views of the last epoch")):
        if key in result:
            shares = ", ".join(f"{name} {_percent(value)} %" for name, value in result[key].items())
            lines.append(f"{words}: {shares}")
    if found := result["foreground"]:
        words = ", ".join(f"{name.replace('_', ' ')} {_percent(value)} %" for name, value in found.items())
        lines.append(f"foreground of a view: {words}")
    return "\n".join(lines)


def show_doctor(result: dict[str, Any]) -> str:
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in result["checks"]:
        table.add_row(
            "ok" if check["ok"] else "--",
            check["name"],
            escape(check["found"]),
            "" if check["ok"] else escape(check["cure"]),
        )
    return _text(table)


def show_pack(result: dict[str, Any]) -> str:
    lines = [f"{result['images']} images in {result['shards']} shards, {result['bytes'] / 1e6:.1f} MB: {result['out']}"]
    lines += [f"  image or mask cannot be read, left out in training: {name}" for name in result["unreadable"]]
    return "\n".join([*lines, f"to train from it: data.pack={anywhere(result['out'])}"])


def show_masks_make(result: dict[str, Any]) -> str:
    """Counts, odd foregrounds, and all images without a mask, by name."""
    shares = ", ".join(f"{name} {_percent(value)} %" for name, value in result["shares"].items())
    lines = [
        f"{result['masks']} masks by {result['method']} in {result['out']}, {result['made']} of them made now"
        + (f" ({result['images_per_second']:.1f} images/s)" if result["made"] else ""),
        f"foregrounds: {shares}",
    ]
    if result["passed_over"]:
        lines.append(f"passed over: {result['passed_over']} files that are no images by their names")
    if result["unreadable"]:
        lines.append(f"without mask: {len(result['unreadable'])} images; replace or remove them before training")
        lines += [f"  {item['image']}: {item['reason']}" for item in result["unreadable"]]
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


def show_masks_train(result: dict[str, Any]) -> str:
    start = "the encoder of a self-supervised run" if result["encoder"] else "random weights"
    lines = [
        f"wrote {result['out']}: learnt from {result['images']} images by {', '.join(result['teachers'])}",
        f"every network started from {start}",
        f"use it: bgsweep masks make IMAGES --out MASKS --method usps --weights {anywhere(result['out'])}",
    ]
    lines += [f"not read: {item['image']}: {item['reason']}" for item in result["unreadable"]]
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


def show_masks_score(result: dict[str, Any]) -> str:
    values = "  ".join(f"{name} {result[name]:.3f}" for name in ("max_f_beta", "mean_f_beta", "mae", "iou"))
    lines = [f"{values}  ({result['images']} images)"]
    lines += [f"not scored: {result[name]} {name.replace('_', ' ')}" for name in ("without_truth", "without_mask")]
    lines += ["lowest IoU:", *(f"  {item['iou']:.3f}  {item['mask']}" for item in result["worst"])]
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


def show_masks_show(result: dict[str, Any]) -> str:
    looked_at = f"the {result['shown']} strangest of {result['looked_at']} masks looked at"
    return f"wrote {result['picture']} ({looked_at}; {result['without_mask']} images have no mask)"


def _trials(trials: list[dict[str, Any]], front: Sequence[str] = ()) -> str:
    table = Table(title="Trials", title_justify="left", box=None, pad_edge=False)
    keys = list(dict.fromkeys(key for trial in trials for key in trial["params"]))
    scores = {"knn_top1": "kNN %"} | (
        {"bg_gap": "gap %"} if any("bg_gap" in each["metrics"] for each in trials) else {}
    )
    for name in ("trial", "state", "epochs", *(key.rpartition(".")[2] for key in keys), *scores.values(), ""):
        table.add_column(name, justify="left" if name in ("trial", "state", "") else "right")
    for trial in trials:
        values = (trial["params"].get(key, "") for key in keys)
        table.add_row(
            trial["id"],
            trial["status"],
            str(trial["epochs"]),
            *(f"{value:.3g}" if isinstance(value, float) else str(value) for value in values),
            *(_mean(trial["metrics"], name) for name in scores),
            escape(
                ", ".join(filter(None, (trial["fixed"], _failures(trial), "on the front" * (trial["id"] in front))))
            ),
        )
    return _text(table)


def _mean(metrics: dict[str, float], name: str) -> str:
    """A value in percent, with its standard error where it is a mean over seeds."""
    error = metrics.get(f"{name}_se")
    return _percent(metrics.get(name)) + ("" if error is None else f" ± {_percent(error)}")


def _failures(trial: dict[str, Any]) -> str:
    return f"failures: {trial['failures']}, {trial['error']}" if trial["failures"] else ""


def _comparison(result: dict[str, Any]) -> str:
    names = [name for name in ("best", "baseline", "champion", "untrained") if result.get(name)]
    images = result["best"]["protocol"].get("test", "test split")
    table = Table(
        title=f"Final evaluation, in % ({images}; not used by the search)",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("")
    for name in names:
        origin = result[name].get("trial") or f"version {result[name].get('version')}"
        table.add_column(name if name == "untrained" else f"{name} ({origin})", justify="right")
    rows: list[tuple[str, tuple[str, ...]]] = [("kNN", ("knn_top1",)), ("linear probe", ("linear_top1",))]
    if result["best"]["metrics"]["backgrounds"]:
        rows += [(f"kNN {name}", ("backgrounds", name)) for name in (*VARIANTS, "bg_gap")]
    for label, path in rows:
        table.add_row(label, *(_percent(_at(result[name]["metrics"], path)) for name in names))
    for name, label in (("knn_top1", "kNN"), ("linear_top1", "linear probe"), ("bg_gap", "kNN bg_gap")):
        over = [result[role].get("seeds", {}).get(name) for role in names]
        if any(over):
            cells = (f"{_percent(each['mean'])} ± {_percent(each['se'])}" if each else "" for each in over)
            table.add_row(f"{label}, mean of seeds", *cells)
    return _text(table)


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _text(table: Table) -> str:
    console = Console(width=200, color_system=None, highlight=False)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"
