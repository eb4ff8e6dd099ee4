"""Metrics without labels beside what labels say, over trials: do they choose the same?

    python benchmarks/metrics.py FOLDER --sweeps STORE/sweeps/NAME … [--part 1/2] [--record] [--json]
    python benchmarks/metrics.py FOLDER [--trials 60] [--epochs 10] [--images DIR --masks DIR] [--part 1/2] …

The first measures the trials of sweeps that have ended and whose checkpoints were kept. The second trains trials of
several methods with drawn rates, background augmentations and seeds on the embedded images, 95 % of whose training
images have a background that gives the class away, or on class folders with masks. All are measured on the validation
split. Each trial has a file in FOLDER, so that a run that was broken off goes on, and several processes with another
--part each share the work. Correlations are of the direction that each metric calls better: +1 is an order that agrees
with that of the labels, also for BG-Gap, whose lower values are better. Intervals (95 %) are bootstraps over trials.
The regret is what the metric's choice has less than the best trial, in points of kNN on Mixed-Rand; a choice by two
metrics is that of `search.metric` with a list.
"""

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from common import markdown, parser_of, report
from scipy.stats import kendalltau, spearmanr

from bgsweep.config import SuiteConfig, SweepConfig, resolve
from bgsweep.config.metrics import METRIC_PARTS, section_of
from bgsweep.data import Splits, open_splits
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.frozen_model import FrozenModel
from bgsweep.evaluation.online import open_metric
from bgsweep.storage.atomic import write_whole
from bgsweep.storage.layout import CHECKPOINT_FILE, seed_checkpoints
from bgsweep.sweep.journal import read_records
from bgsweep.sweep.pareto import best_of, pareto
from bgsweep.sweep.trial_record import TrialRecord
from bgsweep.training.checkpoint import load_trained
from bgsweep.training.encode import frozen_model
from bgsweep.training.run import Run, limit_threads
from bgsweep.training.trainer import Diverged

METHODS: dict[str, dict[str, Any]] = {
    "moco_v2": {"queue_size": 192, "momentum": 0.97, "hidden_dim": 256, "embedding_dim": 64, "split_bn": 2},
    "simclr": {"hidden_dim": 256, "embedding_dim": 64},
    "vicreg": {"hidden_dim": 256, "embedding_dim": 256},
}
LABELLED = {"kNN Original": ("knn_top1", 1), "kNN Mixed-Rand": ("mixed_rand", 1), "BG-Gap": ("bg_gap", -1)}
RESAMPLINGS = 1000
CURVE_EVERY = 2
"""Epochs between two values of a trial's curve, which `search.py` replays."""

LABELLED_PARTS = ("knn", "bg_gap")
PAIRS = (("reliance/swap_lidar", "reliance/bg_share"), ("rotation/top1", "reliance/bg_share"))
"""Metrics of quality with one of leaning on backgrounds."""

SWEEP = 20
"""Trials of a simulated sweep, whose choice is judged."""
Numbers = npt.NDArray[np.float64]


def main() -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sweeps", nargs="+", type=Path, help="folders of sweeps")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", help="class folders below train and val; default: the embedded images")
    parser.add_argument("--masks")
    parser.add_argument("--part", default="1/1", help="K/N: this process trains every N-th trial")
    options = parser.parse_args()
    limit_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    part, parts = map(int, options.part.split("/"))
    jobs = of_sweeps(options.sweeps) if options.sweeps else drawn_trials(options)
    for name, job in list(jobs.items())[part - 1 :: parts]:
        path = options.folder / f"{name}.json"
        if not path.exists():
            write_whole(path, json.dumps(job()).encode())
    paths = [options.folder / f"{name}.json" for name in jobs]
    every = [json.loads(path.read_text()) for path in paths if path.exists()]
    found = [one for one in every if "values" in one]
    if parts > 1 or len(found) < 4:
        print(f"{len(found)} trials; without --part the table is made")
        return
    body, values = summed_up(found)
    sweeps = f" --sweeps {len(options.sweeps)} sweeps" if options.sweeps else ""
    images = f" --images {options.images} --masks {options.masks}" if options.images else ""
    trained_here = f" --trials {len(found)} --epochs {options.epochs}{images}"
    command = f"python benchmarks/metrics.py FOLDER{sweeps or trained_here}"
    report(options, "Metrics without labels beside kNN", command, body, values)


Job = Callable[[], dict[str, Any]]


def of_sweeps(folders: Sequence[Path]) -> dict[str, Job]:
    """The trials of sweeps that have ended, by sweep and trial."""
    jobs: dict[str, Job] = {}
    for folder in folders:
        for record in read_records(folder).values():
            checkpoint = seed_checkpoints(record.checkpoint or "", 0, 1)[0]
            if record.status in ("completed", "stopped") and Path(checkpoint, CHECKPOINT_FILE).exists():
                jobs[f"{folder.name}-{record.id}"] = partial(kept, str(checkpoint))
    return jobs


def kept(checkpoint: str) -> dict[str, Any]:
    """The values of a trial whose checkpoint was kept."""
    found = load_trained(checkpoint)
    data = found.experiment.data.model_copy(update={"loader_workers": 0})
    model = frozen_model(found.encoder, torch.device("cpu"))
    values, seconds = measured(model, open_splits(data), found.experiment.views.size)
    group = f"{found.experiment.method.name}, {found.experiment.training.epochs} epochs"
    return {"group": group, "values": values, "seconds": seconds, "of": checkpoint}


def drawn_trials(options: Any) -> dict[str, Job]:
    """Trials that are trained here."""
    return {
        f"{number:04d}-{options.epochs}": partial(trained, drawn(number, options)) for number in range(options.trials)
    }


def drawn(number: int, options: Any) -> SweepConfig:
    """A trial: methods in turn, everything else drawn by its number."""
    draw, method = np.random.default_rng(number), list(METHODS)[number % len(METHODS)]
    data: dict[str, Any] = {"resize": 40, "cache": True, "loader_workers": 0, "shortcut": {"rho": 0.95}}
    data |= {"images": options.images, "masks": options.masks} if options.images else {"images": "sample"}
    remove, random = (float(draw.choice([0, 0.15, 0.3, 0.45])) for _ in range(2))
    experiment: dict[str, Any] = {
        "seed": number,
        "data": data,
        "views": {"size": 24, "jitter": [0.4, 0.4, 0.4, 0.0], "blur": 0.0},
        "background": {"remove": remove, "random": random},
        "method": {"name": method, **METHODS[method]},
        "encoder": {"name": "resnet10", "width": 16, "stem": "small"},
        "optimizer": {"lr": float(np.exp(draw.uniform(*np.log([0.01, 0.3])))), "warmup_epochs": 1},
        "training": {"epochs": options.epochs, "batch_size": 64},
        "workers": {"device": "cpu"},
    }
    if method == "vicreg":
        experiment["optimizer"] = {"name": "sgd", **experiment["optimizer"]}
    return resolve({"experiment": experiment, "evaluate": {"every": options.epochs}})


def trained(config: SweepConfig) -> dict[str, Any]:
    """A trial's values at its end, labelled ones on the way, and what each metric and an epoch take of a core (s)."""
    run, epochs, training = Run(config), config.experiment.training.epochs, 0.0
    size = config.experiment.views.size
    curve = dict[int, dict[str, float]]()
    while run.training.epoch < epochs:
        began = time.process_time()
        try:
            run.training.step_epoch()
        except Diverged as error:
            return {"diverged": str(error), "curve": curve}
        training += time.process_time() - began
        if run.training.epoch % CURVE_EVERY == 0 and run.training.epoch < epochs:
            curve[run.training.epoch], _ = measured(encoder(run), run.splits, size, LABELLED_PARTS)
    values, seconds = measured(encoder(run), run.splits, size)
    told = {key: config.experiment.value(key) for key in ("background.remove", "background.random", "optimizer.lr")}
    return {
        "group": config.experiment.method.name,
        "epochs": epochs,
        "values": values,
        "curve": curve,
        "seconds": seconds | {"epoch": training / epochs},
        **told,
    }


def encoder(run: Run) -> FrozenModel:
    """The run's encoder as it is now."""
    return frozen_model(run.training.method.encoder, run.placement.device)


def measured(
    model: FrozenModel, splits: Splits, size: int, parts: Sequence[str] = tuple(METRIC_PARTS)
) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics' values, and the time of each beyond the features of the validation images, which they share."""
    context = EvalContext(model, SuiteConfig(size=size), splits, split="validation")
    values, seconds, began = dict[str, float](), dict[str, float](), time.process_time()
    _ = context.test
    seconds["features"] = time.process_time() - began
    for name in parts:
        kind, began = METRIC_PARTS[name], time.process_time()
        for one in open_metric(kind.model_validate({"name": name}), context).measure():
            values[kind.recorded(name, one.name)] = one.value
        seconds[name] = time.process_time() - began
    return values, seconds


def goals() -> dict[str, tuple[str, int]]:
    """Each value without labels that has a direction: its name in trials' values, and the direction."""
    return {
        f"{name}/{value}": (section_of(name).recorded(name, value), 1 if mode == "max" else -1)
        for name, kind in METRIC_PARTS.items()
        if not kind.needs_classes
        for value, mode in kind.values.items()
        if mode is not None
    }


def summed_up(trials: Sequence[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Tables of correlations, pooled and by group, and of costs."""
    found: dict[str, Any] = {"trials": len(trials)}
    rows = []
    for name, (key, sign) in goals().items():
        metric = sign * column(trials, key)
        row, found[name] = [f"`{name}`"], {}
        for label, (other, direction) in LABELLED.items():
            labels = direction * column(trials, other)
            rank = interval(metric, labels, lambda a, b: float(spearmanr(a, b).statistic))
            tau = interval(metric, labels, lambda a, b: float(kendalltau(a, b).statistic))
            found[name][label] = {"spearman": rank, "kendall": tau}
            row.append(f"{shown(rank)}; {tau[0]:+.2f}")
        by_group = [within(trials, group, key, sign) for group in groups_of(trials)]
        found[name]["by group"] = by_group
        best = column(trials, "mixed_rand")
        regret = 100 * (best.max() - best[int(metric.argmax())])
        found[name]["regret"] = regret
        rows.append([*row, " / ".join(f"{each:+.2f}" for each in by_group), f"{regret:.1f}"])
    names = [f"{label}: Spearman [95 %]; Kendall" for label in LABELLED]
    body = markdown(["metric", *names, f"Mixed-Rand within {' / '.join(groups_of(trials))}", "regret"], rows)
    parts = [body, about(trials), choices(trials, found), costs(trials, found)]
    return "\n\n".join(parts), found


def choices(trials: Sequence[dict[str, Any]], found: dict[str, Any]) -> str:
    """A table of what sweeps lose by choosing by one metric or by two, and of the BG-Gap of the trials they choose."""
    records = [
        TrialRecord(str(index), {}, None, "", "", "completed", metrics=one["values"])
        for index, one in enumerate(trials)
    ]
    draw = np.random.default_rng(0)
    sweeps = [draw.choice(len(trials), min(SWEEP, len(trials)), replace=False) for _ in range(RESAMPLINGS)]
    rows, best = [], column(trials, "mixed_rand")
    for names in (*((name,) for name in goals()), *PAIRS):
        signs = dict(goals()[name] for name in names)
        chosen = [int(best_of(pareto([records[each] for each in one], signs), signs).id) for one in sweeps]
        lost = 100 * np.array([best[one].max() - best[each] for one, each in zip(sweeps, chosen, strict=True)])
        gap = 100 * column(trials, "bg_gap")[chosen]
        found["choice by " + " and ".join(names)] = float(lost.mean()), float(gap.mean())
        rows.append([", ".join(f"`{name}`" for name in names), f"{lost.mean():.1f}", f"{gap.mean():.1f}"])
    by_chance = 100 * np.mean([best[one].max() - best[one].mean() for one in sweeps])
    rows.append(["a random trial", f"{by_chance:.1f}", f"{100 * column(trials, 'bg_gap').mean():.1f}"])
    return markdown(
        [f"choice among {len(sweeps[0])} of the trials by", "regret on Mixed-Rand, mean", "BG-Gap, mean"], rows
    )


def about(trials: Sequence[dict[str, Any]]) -> str:
    """The spread of what labels say, without which no order can be found."""
    counts = ", ".join(f"{sum(one['group'] == group for one in trials)} of {group}" for group in groups_of(trials))
    spans = "; ".join(
        f"{label} {100 * column(trials, key).min():.1f} to {100 * column(trials, key).max():.1f} %"
        for label, (key, _) in LABELLED.items()
    )
    best = column(trials, "mixed_rand")
    regret = 100 * (best.max() - best.mean())
    return f"{len(trials)} trials, {counts}. {spans}. A random choice has a regret of {regret:.1f}."


def costs(trials: Sequence[dict[str, Any]], found: dict[str, Any]) -> str:
    """Seconds of a core of each metric beside an epoch's."""
    found["seconds"] = {
        name: float(np.median([one["seconds"][name] for one in trials])) for name in trials[0]["seconds"]
    }
    rows = [[name, f"{value:.2f}"] for name, value in found["seconds"].items()]
    return markdown(["", "seconds of a core (median)"], rows)


def groups_of(trials: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(one["group"] for one in trials))


def column(trials: Sequence[dict[str, Any]], key: str) -> Numbers:
    """A value of all trials."""
    return np.array([one["values"][key] for one in trials])


def within(trials: Sequence[dict[str, Any]], group: str, key: str, sign: int) -> float:
    """Spearman's correlation with Mixed-Rand among the trials of a method (and a length, of sweeps)."""
    own = [one for one in trials if one["group"] == group]
    return float(spearmanr(sign * column(own, key), column(own, "mixed_rand")).statistic)


def interval(
    one: Numbers, other: Numbers, statistic: Callable[[Numbers, Numbers], float]
) -> tuple[float, float, float]:
    """A correlation with its percentile interval over resampled trials; draws without any spread are left out."""
    draw, values = np.random.default_rng(0), []
    for _ in range(RESAMPLINGS):
        rows = draw.integers(len(one), size=len(one))
        if np.ptp(one[rows]) and np.ptp(other[rows]):
            values.append(statistic(one[rows], other[rows]))
    lower, upper = np.quantile(values, [0.025, 0.975]) if values else (math.nan, math.nan)
    return statistic(one, other), float(lower), float(upper)


def shown(value: tuple[float, float, float]) -> str:
    return f"{value[0]:+.2f} [{value[1]:+.2f}, {value[2]:+.2f}]"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
