"""Results as text: tables, percentages and durations."""

import re
from collections.abc import Container, Iterable, Sequence
from typing import Any

_NUMBER = re.compile(r"[-+]?[.\d]")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> str:
    """Aligned columns under a header (none if all its cells are empty); columns of numbers are aligned to the right."""
    columns = []
    for head, *cells in zip(header, *rows, strict=True):
        width = max(map(len, (head, *cells)))
        numbers = any(cells) and all(_NUMBER.match(cell) for cell in cells if cell)
        columns.append([cell.rjust(width) if numbers else cell.ljust(width) for cell in (head, *cells)])
    lines = ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]
    return "\n".join([*([title] if title else []), *lines[0 if any(header) else 1 :]]) + "\n"


def percent(value: float | None) -> str:
    """A share in percent with one decimal; empty for None."""
    return "" if value is None else f"{100 * value:.1f}"


def percentages(shares: dict[str, float]) -> str:
    """Named shares on one line, such as `removed 30.1 %, kept 2.0 %`."""
    return ", ".join(f"{name.replace('_', ' ')} {percent(value)} %" for name, value in shares.items())


def with_error(mean: float | None, error: float | None) -> str:
    """A mean in percent, with its standard error if there is one."""
    return percent(mean) + ("" if error is None else f" ± {percent(error)}")


def local_time(seconds: float) -> str:
    """A time to the minute, with this machine's offset from UTC: results come from several machines."""
    from datetime import datetime  # here: `--help` must not wait for it

    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="minutes")


def duration(hours: float) -> str:
    """Hours in the unit that reads best: 50 s, 12 min, 3.4 h."""
    minutes = hours * 60
    return f"{minutes * 60:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"


def size(number: float) -> str:
    """Bytes in the unit that reads best: 12 KiB, 340 MiB, 1.2 GiB."""
    kib, mib, gib = number / 2**10, number / 2**20, number / 2**30
    return f"{kib:.0f} KiB" if mib < 1 else f"{mib:.0f} MiB" if gib < 1 else f"{gib:.1f} GiB"


def trial_table(trials: Sequence[dict[str, Any]], front: Container[str] = ()) -> str:
    """A row for each trial of a sweep: its state, searched values, scores and failures."""
    keys = list(dict.fromkeys(key for trial in trials for key in trial["params"]))
    scores = {"knn_top1": "kNN %"}
    others: dict[str, str] = {}
    if not any("knn_top1" in trial["metrics"] for trial in trials):  # without classes
        every = dict.fromkeys(name for trial in trials for name in trial["metrics"] if name.startswith("validation/"))
        others = {name: name.removeprefix("validation/") for name in every if f"{name}_se" in every}
        scores = {} if others else scores
    if any("bg_gap" in trial["metrics"] for trial in trials):
        scores["bg_gap"] = "gap %"
    rows = []
    for trial in trials:
        values = (trial["params"].get(key, "") for key in keys)
        failures = f"failures: {trial['failures']}, {trial['error']}" if trial["failures"] else ""
        notes = (trial["fixed"], failures, trial.get("waiting"), "on the Pareto front" if trial["id"] in front else "")
        rows.append(
            [
                trial["id"],
                trial["status"],
                str(trial["epochs"]),
                *(f"{value:.3g}" if isinstance(value, float) else str(value) for value in values),
                *(with_error(trial["metrics"].get(name), trial["metrics"].get(f"{name}_se")) for name in scores),
                *(f"{trial['metrics'][name]:.4g}" if name in trial["metrics"] else "" for name in others),
                ", ".join(filter(None, notes)),
            ]
        )
    header = [
        "trial",
        "state",
        "epochs",
        *(key.rpartition(".")[2] for key in keys),
        *scores.values(),
        *others.values(),
        "",
    ]
    return table(header, rows, "Trials")
