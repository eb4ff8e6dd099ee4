"""Searchers where trials' metrics are noisy: what the winner has less than the best point, of a known function.

    python benchmarks/noisy.py [--sweeps 40] [--trials 30] [--record] [--json]

The function of three parameters falls with the squared distance from its peak, which is drawn. Each trial is a mean
over three seeds, whose noise grows tenfold along one of the parameters; the searcher is told its standard error, and
the winner is chosen as by bgsweep. `gp, errors not told` takes the same searcher without them.
"""

import os
import statistics
from typing import Any

import numpy as np
from common import markdown, parser_of, report

from bgsweep.config import SweepConfig, resolve
from bgsweep.sweep.searcher import VALUES, TuneSearcher
from bgsweep.sweep.selection import winner
from bgsweep.sweep.trial_record import TrialRecord

SPACE = {
    "background.remove": {"uniform": [0.0, 1.0]},
    "background.random": {"uniform": [0.0, 1.0]},
    "optimizer.lr": {"loguniform": [0.01, 1.0]},
}
SETTINGS = {"random": "random", "TPE": "optuna", "gp, errors not told": "gp", "gp": "gp"}
SEEDS = 3
FIRST = 1000
"""The first sweep's seed: the searcher's range of lengths was chosen on those from 0 on."""


def main() -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--sweeps", type=int, default=40)
    parser.add_argument("--trials", type=int, default=30)
    options = parser.parse_args()
    found = {
        name: [
            regret(algorithm, "not" not in name, options.trials, seed) for seed in range(FIRST, FIRST + options.sweeps)
        ]
        for name, algorithm in SETTINGS.items()
    }
    rows = [[name, *shown(values, found["TPE"])] for name, values in found.items()]
    command = f"python benchmarks/noisy.py --sweeps {options.sweeps} --trials {options.trials}"
    body = markdown(["searcher", "regret: mean ± standard error", "less than with TPE, paired [95 %]"], rows)
    report(options, "Searchers of a noisy function", command, body, found)


def shown(values: list[float], by: list[float]) -> list[str]:
    """In thousandths of the function's fall of 1 at a distance of 1."""
    one, other = 1000 * np.array(values), 1000 * np.array(by)
    error = statistics.stdev(one) / len(one) ** 0.5
    rows = np.random.default_rng(0).integers(len(one), size=(2000, len(one)))
    low, high = np.quantile((other - one)[rows].mean(1), [0.025, 0.975])
    return [f"{one.mean():.1f} ± {error:.1f}", f"{(other - one).mean():+.1f} [{low:+.1f}, {high:+.1f}]"]


def regret(algorithm: str, tells: bool, trials: int, seed: int) -> float:
    """The truth at the peak less that at the winner of one sweep."""
    search = {"algorithm": algorithm, "trials": trials, "baseline": False, "seed": seed, "seeds": SEEDS}
    config = resolve({"space": SPACE, "search": {**search, "scheduler": "none"}})
    draw = np.random.default_rng(seed)
    peak, searcher = draw.uniform(0.2, 0.8, 3), TuneSearcher(config)
    records = {}
    for number in range(trials):
        given: Any = searcher.suggest(str(number))
        place = np.array([*list(given[VALUES].values())[:2], np.log10(given[VALUES]["optimizer.lr"]) / 2 + 1])
        truth = -float(((place - peak) ** 2).sum())
        noise = draw.normal(0, 0.03 * 10 ** place[0], SEEDS)
        metrics = {"knn_top1": truth + noise.mean(), "knn_top1_se": statistics.stdev(noise) / SEEDS**0.5}
        told = metrics if tells else {"knn_top1": metrics["knn_top1"]}
        searcher.on_trial_complete(str(number), {"epoch": epochs(config), **told})
        name = f"t{number:02d}"
        record = TrialRecord(name, {"truth": truth}, None, "", "", "completed", epochs(config), metrics)
        records[name] = record
    best = winner(records, config.search)
    assert best is not None
    return -float(best.params["truth"])


def epochs(config: SweepConfig) -> int:
    return config.experiment.training.epochs


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
