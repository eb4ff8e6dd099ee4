"""Simulated sweeps over recorded trials: how many epochs does each way of searching need for the front?

    python benchmarks/search.py [--sweeps 100] [--workers 4] [--jobs 2] [--record] [--json]
    python benchmarks/metrics.py FOLDER --trials 60 --epochs 12    # trains trials of your own,
    python benchmarks/search.py FOLDER [--write FILE]              # which are replayed, and written in one file
    python benchmarks/search.py --made 60                          # trials of a known function

Without FOLDER, the 60 trials of `measured/trials.jsonl` are replayed, whose making RESULTS.md describes.

Searchers and schedulers are bgsweep's own. What a searcher proposes becomes the nearest recorded trial of the same
method that the sweep has not used, whose recorded curve is then played; the searcher is told the values of that trial.
An epoch takes the same time in all trials, and so many of them run at once. A sweep's front is that of the trials that
ran to their end, as in bgsweep; its hypervolume is a share of that of all recorded trials, above the worst value of
each goal. Settings share their seeds. Nothing is trained: a sweep takes a third of a second, with the
Gaussian process (`--without '^GP'` leaves it out) some seconds.

A table of 60 trials runs out of good ones: a searcher that finds them first has only bad ones left, and what ASHA stops
does not come again. `--made` has no such end: every proposal is a new trial, of two goals that a formula gives.

`freeze-thaw` is here to judge by, and no part of bgsweep: no trial is stopped, but every two epochs each worker goes on
with the trial, paused or new, that promises the most hypervolume for the epochs that it still takes. A trial's end is
predicted by the mean rise of those that have ended (Swersky et al. 2014 has a Gaussian process there).

The rule for it, fixed before the figures that it is applied to: the mean epochs to 95 % of each setting are divided by
those of the best of bgsweep's own settings (the one with the least geometric mean over all pairs of goals), and the
geometric mean of the quotients over the pairs is taken. Freeze-thaw is built if that is below .8 with the whole of its
95 % interval, that is if a gain of 20 % of epochs is sure.
"""

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import markdown, parser_of, report
from replay import (
    KEYS,
    STEP,
    Box,
    Course,
    Numbers,
    Recorded,
    freeze_thaw,
    lines_of,
    over_epochs,
    recorded,
    with_scheduler,
)

from bgsweep.config import SweepConfig, resolve
from bgsweep.report.dominance import front

MEASURED = Path(__file__).parent / "measured/trials.jsonl"
GOALS = (("mixed_rand", "bg_gap"), ("knn_top1", "bg_gap"), ("knn_top1", "mixed_rand"), ("mixed_rand",))
ASHA: dict[str, Any] = {"scheduler": "asha", "grace_epochs": 2, "reduction": 3}
NET = {"scheduler_options": {"spread": "epsilon_net"}}
SETTINGS: dict[str, dict[str, Any]] = {
    "random, none stopped": {"algorithm": "random", "scheduler": "none"},
    "TPE, none stopped": {"algorithm": "optuna", "scheduler": "none"},
    "random, ASHA": {"algorithm": "random", **ASHA},
    "TPE, ASHA": {"algorithm": "optuna", **ASHA},
    "TPE, ASHA by an epsilon-net": {"algorithm": "optuna", **ASHA, **NET},
    "TPE, ASHA of reduction 2": {"algorithm": "optuna", **ASHA, "reduction": 2},
    "GP, none stopped": {"algorithm": "gp", "scheduler": "none"},
    "GP, ASHA": {"algorithm": "gp", **ASHA},
    "TPE, freeze-thaw": {"algorithm": "optuna", "scheduler": "none"},
    "GP, freeze-thaw": {"algorithm": "gp", "scheduler": "none"},
}
JUDGED = "TPE, ASHA"
"""What the others are compared with."""

MADE_BOX = Box([0.1, -0.4], [0.5, -0.05], 0.936)
"""Of `made_ends`, whose front dominates so much of the box."""

ENOUGH = 0.95
PARTS = (0.1, 0.2, 0.4, 1.0)
"""Of the epochs of all recorded trials: where hypervolumes are shown."""


def main() -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("folder", type=Path, nargs="?", default=MEASURED, help="of metrics.py, or a file of --write")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the trials into one file, and end")
    parser.add_argument("--sweeps", type=int, default=100, help="simulated sweeps of each setting")
    parser.add_argument("--workers", type=int, default=4, help="trials at once")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes that simulate")
    parser.add_argument("--without", default="^$", help="settings that are left out, as a regular expression")
    parser.add_argument("--made", type=int, metavar="TRIALS", help="so many trials of a known function, none recorded")
    options = parser.parse_args()
    if options.made:
        with ProcessPoolExecutor(options.jobs) as pool:
            body, made = judged_by_function(options, pool.map)
        command = f"python benchmarks/search.py --made {options.made} --sweeps {options.sweeps}"
        report(options, "Searches over a known function", command, body, made)
        return
    trials = recorded(options.folder)
    if len(trials) < 12:
        raise SystemExit(f"{options.folder}: {len(trials)} trials with curves; train 12 or more with metrics.py")
    if options.write:
        options.write.write_text("".join(f"{line}\n" for line in lines_of(trials)))
        return
    parts, found = [about(trials, options)], dict[str, Any]()
    with ProcessPoolExecutor(options.jobs) as pool:
        for goals in GOALS:
            name = " and ".join(goals)
            body, found[name] = judged(trials, goals, options.sweeps, options.workers, options.without, pool.map)
            parts.append(f"**By {name}.**\n\n{body}")
    parts.append(verdict([each for name, each in found.items() if " and " in name], len(trials) * max(trials[0].curve)))
    folder = "" if options.folder == MEASURED else "FOLDER "
    command = f"python benchmarks/search.py {folder}--sweeps {options.sweeps} --workers {options.workers}"
    command += "" if options.without == "^$" else f" --without '{options.without}'"
    report(options, "Searches over recorded trials", command, "\n\n".join(parts), found)


def about(trials: Sequence[Recorded], options: Any) -> str:
    ends = [one.curve[max(one.curve)] for one in trials]
    spans = "; ".join(
        f"{goal} {100 * min(one[goal] for one in ends):.1f} to {100 * max(one[goal] for one in ends):.1f} %"
        for goal in sorted({goal for goals in GOALS for goal in goals})
    )
    epochs = max(trials[0].curve)
    return (
        f"{len(trials)} recorded trials of {epochs} epochs ({len(trials) * epochs} epochs in all): {spans}. "
        f"{options.sweeps} simulated sweeps of each setting, {options.workers} trials at once; "
        f"median [10 % and 90 % quantile] over the sweeps. In the last column a sweep that never has {ENOUGH:.0%} "
        f"counts as {len(trials) * epochs} epochs."
    )


def config_of(trials: Sequence[Recorded], goals: Sequence[str], setting: Mapping[str, Any]) -> SweepConfig:
    """A sweep of the space that the trials were drawn from."""
    methods = list(dict.fromkeys(one.values["method.name"] for one in trials))
    steps = [0.0, 0.15, 0.3, 0.45]
    space = {
        "method.name": {"choice": methods},
        **{key: {"choice": steps} for key in KEYS[:2]},
        KEYS[2]: {"loguniform": [0.01, 0.3]},
    }
    alone = len(goals) == 1
    own = {key: value for key, value in setting.items() if not (alone and key == "scheduler_options")}
    search = {"metric": goals[0] if alone else list(goals), "trials": len(trials), "baseline": False, **own}
    experiment = {"method": {"name": methods[0]}, "training": {"epochs": max(trials[0].curve)}}
    return resolve({"experiment": experiment, "space": space, "search": search, "evaluate": {"bg_gap": True}})


def judged(
    trials: Sequence[Recorded],
    goals: Sequence[str],
    sweeps: int,
    workers: int,
    without: str = "^$",
    over: Callable[..., Iterable[Any]] = map,
) -> tuple[str, dict[str, dict[str, Any]]]:
    """The table of all settings by some goals; ``over`` is `map`, or that of a pool of processes."""
    signs = config_of(trials, goals, SETTINGS[JUDGED]).search.signs
    ends = [[sign * one.curve[max(one.curve)][goal] for goal, sign in signs.items()] for one in trials]
    box, total = Box.around(ends), len(trials) * max(trials[0].curve)
    shown_at = [round(total * part / STEP) * STEP for part in PARTS]
    found: dict[str, dict[str, Any]] = {}
    for name, setting in SETTINGS.items():
        if (len(goals) == 1 and "scheduler_options" in setting) or re.search(without, name):
            continue
        config = config_of(trials, goals, setting)
        simulate = freeze_thaw if "freeze-thaw" in name else with_scheduler
        run = partial(course_of, simulate, config, trials, workers, box)
        courses = list(over(run, range(sweeps)))
        found[name] = {
            "shares": {epochs: [reached(course, epochs) for course in courses] for epochs in shown_at},
            "epochs": [until(course, ENOUGH) for course in courses],
        }
    rows = [row(name, each, found[JUDGED], total) for name, each in found.items()]
    columns = ["searcher, scheduler", *(f"% of the front's volume at {epochs} epochs" for epochs in shown_at)]
    columns += [f"epochs to {ENOUGH:.0%}", "never", f"mean, of that of {JUDGED} [95 %]"]
    return f"{len(front(ends))} of the trials are on the front of all.\n\n" + markdown(columns, rows), found


def course_of(
    simulate: Callable[..., Course],
    config: SweepConfig,
    trials: Sequence[Recorded] | int,
    workers: int,
    box: Box,
    seed: int,
) -> list[tuple[int, float]]:
    """The share of the front's hypervolume over the epochs of one simulated sweep."""
    return over_epochs(simulate(seeded(config, seed), trials, workers, box), box)


def seeded(config: SweepConfig, seed: int) -> SweepConfig:
    return config.model_copy(update={"search": config.search.model_copy(update={"seed": seed})})


def row(name: str, one: Mapping[str, Any], by: Mapping[str, Any], total: int) -> list[str]:
    percent = [[100 * share for share in shares] for shares in one["shares"].values()]
    never = sum(map(math.isinf, one["epochs"])) / len(one["epochs"])
    value, low, high = ratio(one["epochs"], by["epochs"], total)
    compared = "1" if one is by else f"{value:.2f} [{low:.2f}, {high:.2f}]"
    return [name, *map(spread, percent), spread(one["epochs"]), f"{never:.0%}", compared]


def ratio(one: Sequence[float], other: Sequence[float], most: int) -> tuple[float, float, float]:
    """The quotient of two means over the same seeds, with its percentile interval (95 %) over resampled seeds.

    What never came counts as the epochs of all recorded trials.
    """
    first, second = (np.minimum(each, most) for each in (one, other))
    rows = np.random.default_rng(0).integers(len(first), size=(1000, len(first)))
    low, high = np.quantile(first[rows].mean(1) / second[rows].mean(1), [0.025, 0.975])
    return float(first.mean() / second.mean()), float(low), float(high)


def judged_by_function(options: Any, over: Callable[..., Iterable[Any]] = map) -> tuple[str, dict[str, Any]]:
    """The table of all settings over a known function, by the values without noise."""
    found: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        if re.search(options.without, name):
            continue
        search = {"metric": ["knn_top1", "bg_gap"], "trials": options.made, "baseline": False, **setting}
        space = {**{key: {"uniform": [0.0, 0.5]} for key in KEYS[:2]}, KEYS[2]: {"loguniform": [0.001, 1.0]}}
        experiment = {"training": {"epochs": 12}}
        config = resolve({"experiment": experiment, "space": space, "search": search, "evaluate": {"bg_gap": True}})
        simulate = freeze_thaw if "freeze-thaw" in name else with_scheduler
        run = partial(course_of, simulate, config, options.made, options.workers, MADE_BOX)
        found[name] = list(over(run, range(options.sweeps)))
    total = 12 * options.made
    shown_at = [round(total * part / STEP) * STEP for part in PARTS]
    rows = [
        [name, *(spread([100 * reached(one, epochs) for one in courses]) for epochs in shown_at)]
        for name, courses in found.items()
    ]
    columns = ["searcher, scheduler", *(f"% of the front's volume at {epochs} epochs" for epochs in shown_at)]
    return markdown(columns, rows), found


def verdict(pairs: Sequence[Mapping[str, Any]], most: int) -> str:
    """Freeze-thaw against the best of bgsweep's settings over all pairs of goals, by the rule of this file."""
    epochs = {name: np.minimum([pair[name]["epochs"] for pair in pairs], most) for name in pairs[0]}  # (pairs, seeds)
    logs = {name: float(np.log(each.mean(1)).mean()) for name, each in epochs.items()}
    best = min((name for name in logs if "freeze-thaw" not in name), key=lambda name: logs[name])
    rows = np.random.default_rng(0).integers(epochs[best].shape[1], size=(1000, epochs[best].shape[1]))
    lines = []
    for name, each in epochs.items():
        drawn = np.log(each[:, rows].mean(2) / epochs[best][:, rows].mean(2)).mean(0)
        low, high = np.exp(np.quantile(drawn, [0.025, 0.975]))
        lines.append([name, f"{math.exp(logs[name] - logs[best]):.2f} [{low:.2f}, {high:.2f}]"])
    columns = ["searcher, scheduler", f"epochs to {ENOUGH:.0%}, of those of {best}: geometric mean of the pairs [95 %]"]
    return "**Over all pairs.**\n\n" + markdown(columns, lines)


def reached(course: Sequence[tuple[int, float]], epochs: int) -> float:
    """The share after so many epochs; 0 if no trial had ended."""
    return max((share for spent, share in course if spent <= epochs), default=0.0)


def until(course: Sequence[tuple[int, float]], enough: float) -> float:
    """The epochs after which the share is reached; infinity if it never is."""
    return next((float(spent) for spent, share in course if share >= enough), math.inf)


def quantile(values: Sequence[float] | Numbers, part: float) -> float:
    """Of values that may be infinite: the smallest that so many are at most as high as."""
    ordered = np.sort(np.asarray(values, np.float64))
    return float(ordered[max(0, math.ceil(part * len(ordered)) - 1)])


def spread(values: Sequence[float]) -> str:
    """Median [10 % and 90 % quantile]."""
    middle, low, high = (
        "never" if math.isinf(each) else f"{each:.0f}" for each in (quantile(values, part) for part in (0.5, 0.1, 0.9))
    )
    return f"{middle} [{low} to {high}]"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
