"""Does each method learn on the embedded sample, and does none collapse? Its small recipe, several seeds, beside the
untrained encoder.

    python benchmarks/methods.py [--methods moco_v2 byol ...] [--seeds 3] [--processes 2] [--record] [--json]

Accuracies are kNN's and the linear probe's on the test images, with shuffled backgrounds (Mixed-Rand) and as they
are; seeds move the weights, the order and the views.
"""

import multiprocessing
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from common import markdown, parser_of, report

SPACES = Path(__file__).parents[1] / "search_spaces"
METHODS = ("moco_v2", "byol", "swav", "simclr", "vicreg", "dino", "supervised")
COLUMNS = (
    "method",
    "epochs",
    "minutes",
    "loss, first epoch to last",
    "embedding_std",
    "kNN Mixed-Rand (untrained)",
    "linear Mixed-Rand",
    "kNN Original (untrained)",
    "BG-Gap kNN (untrained)",
)


def one(job: tuple[str, int, list[str]]) -> dict[str, Any]:
    """Train one method with one seed on one core, with these changes (``KEY=VALUE``) to its small recipe."""
    from bgsweep.config import load
    from bgsweep.training.checkpoint import TrainedEncoder, untrained
    from bgsweep.training.final_evaluation import evaluate_final
    from bgsweep.training.run import Run, limit_threads

    method, seed, changes = job
    limit_threads(1)
    file = load(SPACES / f"{method}_small.yaml", [f"seed={seed}", *changes])
    run = Run(file)
    losses, began = [], time.perf_counter()
    while not run.finished:
        metrics = run.step_epoch()
        losses.append(metrics["loss"])
    seconds = time.perf_counter() - began
    encoder = run.training.method.encoder.eval().requires_grad_(False)
    after = evaluate_final(file, TrainedEncoder(file.experiment, encoder, {}))
    before = evaluate_final(file, untrained(file.experiment))
    print(
        f"{method}, seed {seed} {' '.join(changes)}: {seconds:.0f} s, {after.backgrounds}", file=sys.stderr, flush=True
    )
    return {
        "method": method,
        "seed": seed,
        "epochs": run.epoch,
        "seconds": seconds,
        "losses": losses,
        "embedding_std": metrics.get("embedding_std"),
        "trained": after.public(),
        "untrained": before.public(),
    }


def row(method: str, runs: list[dict[str, Any]]) -> list[str]:
    """Means over the seeds with standard deviations."""

    def over(which: str, key: str, name: str) -> str:
        values = [100 * run[which][key][name] for run in runs]
        return f"{statistics.mean(values):.1f}±{statistics.stdev(values) if len(values) > 1 else 0:.1f}"

    first, last = (statistics.mean(run["losses"][place] for run in runs) for place in (0, -1))
    stds = [run["embedding_std"] for run in runs if run["embedding_std"] is not None]
    pair = "{} ({})"
    return [
        method,
        str(runs[0]["epochs"]),
        f"{statistics.mean(run['seconds'] for run in runs) / 60:.1f}",
        f"{first:.2f} to {last:.2f}",
        f"{min(stds):.2f} to {max(stds):.2f}" if stds else "",
        pair.format(*(over(which, "backgrounds", "mixed_rand") for which in ("trained", "untrained"))),
        over("trained", "backgrounds_linear", "mixed_rand"),
        pair.format(*(over(which, "backgrounds", "original") for which in ("trained", "untrained"))),
        pair.format(*(over(which, "backgrounds", "bg_gap") for which in ("trained", "untrained"))),
    ]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    jobs: list[tuple[str, int, list[str]]]
    jobs = [(method, seed, []) for method in options.methods for seed in range(options.seeds)]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        runs = pool.map(one, jobs, chunksize=1)
    rows = [row(method, [run for run in runs if run["method"] == method]) for method in options.methods]
    title = f"Methods on the embedded sample, {options.seeds} seeds each, in %"
    command = f"python benchmarks/methods.py --processes {options.processes}"
    report(options, title, command, markdown(COLUMNS, rows), runs)


if __name__ == "__main__":
    main()
