"""Training by recipes that others published, with each kNN accuracy beside the published one: what imagenette.py and
cifar10.py share.

A run keeps a checkpoint and its curve in a folder of its own below `--out`, and goes on from there when it is called
again with the same settings.
"""

import argparse
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from common import markdown

ARMS = {
    "none": {},
    "bg_rm": {"remove": 0.2},
    "bg_random": {"random": 0.2},
    "bg_swaps": {"swap": 0.2},
    "background": {"remove": 0.2, "random": 0.2},
}
"""Background augmentations of the runs that are compared; none of the published ones had any."""
_ARMS = ("none", "background")

Curve = list[dict[str, float]]


@dataclass(frozen=True)
class Recipe:
    """A method's published recipe.

    Attributes:
        experiment: sections of the experiment.
        published: kNN accuracies by epoch, for each length of a run that somebody published.
        maximum: they are maxima over all epochs so far, not those at that epoch.
        differs: what is otherwise here.
    """

    experiment: Mapping[str, Any]
    published: Mapping[int, Mapping[int, float]] = field(default_factory=dict)
    maximum: bool = False
    differs: str = ""

    def beside(self, epochs: int, epoch: int) -> float | None:
        """The published value of a run of ``epochs`` at an epoch; None where there is none."""
        return self.published.get(epochs, {}).get(epoch)


def arguments(parser: argparse.ArgumentParser, recipes: Mapping[str, Recipe], epochs: int) -> None:
    """Options of both benchmarks."""
    parser.add_argument("--methods", nargs="+", choices=recipes, default=list(recipes), metavar="METHOD")
    parser.add_argument(
        "--arms", nargs="+", choices=ARMS, default=_ARMS, help=f"background augmentations; default {' '.join(_ARMS)}"
    )
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--every", type=int, help="epochs between evaluations; default: 20 of them")
    parser.add_argument("--minutes", type=float, help="of each run: as many epochs as fit, at most --epochs")
    parser.add_argument("--pace", action="store_true", help="only print the seconds of start, epoch and evaluation")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and curves")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="changes to the recipe")


def conduct(
    options: argparse.Namespace, recipes: Mapping[str, Recipe], splits: Any, knn: Mapping[str, float], seed: int = 0
) -> list[dict[str, Any]]:
    """Train the chosen methods and arms one after the other; their rows."""
    options.out.mkdir(parents=True, exist_ok=True)
    arms = [arm for arm in options.arms if splits.train.has_masks or not ARMS[arm]]
    for arm in set(options.arms) - set(arms):
        print(f"{arm}: left out, since there are no masks", flush=True)
    found = []
    for method in options.methods:

        def config(arm: str, epochs: int, method: str = method) -> Any:
            return configuration(recipes[method], ARMS[arm], epochs, options, knn, seed)

        if options.pace:
            print(json.dumps(asdict(pace(config(arms[-1], 1000), splits))))
            raise SystemExit(0)
        epochs = options.epochs
        if options.minutes is not None:  # the same number for all arms, by the last
            began = time.perf_counter()
            measured = pace(config(arms[-1], 1000), splits)
            epochs = min(epochs, measured.epochs(60 * options.minutes - (time.perf_counter() - began)))
        for arm in arms:
            folder = options.out / f"{method}-{arm}-{epochs}"
            curve = train(config(arm, epochs), splits, folder, functools.partial(_tell, folder.name))
            found += rows(recipes[method], method, arm, epochs, curve)
    return found


def _tell(run: str, line: str) -> None:
    print(f"{run}: {line}", flush=True)


def configuration(
    recipe: Recipe,
    background: Mapping[str, float],
    epochs: int,
    options: argparse.Namespace,
    knn: Mapping[str, float],
    seed: int,
) -> Any:
    """The run's config: the recipe, an arm, a length and the changes of the command line."""
    import yaml

    from bgsweep.config import resolve

    tree: dict[str, Any] = {key: dict(section) for key, section in recipe.experiment.items()}
    tree["training"] = {**tree.get("training", {}), "epochs": epochs}
    tree |= {"seed": seed, "background": dict(background), "workers": {"device": options.device}}
    for change in options.set:
        key, _, value = change.partition("=")
        section, _, leaf = key.partition(".")
        tree[section] = {**tree.get(section, {}), leaf: yaml.safe_load(value)}
    every = options.every or max(1, epochs // 20)
    return resolve({"experiment": tree, "evaluate": {"every": every, "knn": dict(knn)}})


def train(config: Any, splits: Any, folder: Path, tell: Callable[[str], None]) -> Curve:
    """Train to the end, from the folder's checkpoint on if there is one; the values of each evaluated epoch."""
    from bgsweep.training.run import Run, limit_threads

    limit_threads(config.experiment.workers.cpus)
    folder.mkdir(parents=True, exist_ok=True)
    run, file = Run(config, splits=splits), folder / "curve.jsonl"
    if (folder / "state.pt").exists():
        run.restore(folder)
        tell(f"goes on after epoch {run.epoch}")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    curve: Curve = [row for row in map(json.loads, lines) if row["epoch"] <= run.epoch]
    began = time.perf_counter()
    while not run.finished:
        metrics = run.step_epoch()
        if "knn_top1" not in metrics:
            continue
        row = {key: metrics[key] for key in ("epoch", "loss", "knn_top1", "images_per_second")}
        curve.append({**row, "seconds": round(time.perf_counter() - began, 1)})
        run.save(folder)  # before the curve, whose rows beyond the checkpoint would be trained again
        file.write_text("".join(json.dumps(each) + "\n" for each in curve), encoding="utf-8")
        tell("  ".join(f"{key} {value:.4g}" for key, value in curve[-1].items()))
    if splits.validation.has_masks and "bg_gap" not in curve[-1]:
        curve[-1] |= _on_other_backgrounds(run)
        file.write_text("".join(json.dumps(each) + "\n" for each in curve), encoding="utf-8")
    return curve


def _on_other_backgrounds(run: Any) -> dict[str, float]:
    """The trained encoder's kNN accuracy on Mixed-Same and Mixed-Rand, and their difference."""
    run.evaluated = run.evaluated.with_metrics(["bg_gap"])
    found = run.evaluate()
    return {key: found[key] for key in ("mixed_same", "mixed_rand", "bg_gap")}


@dataclass(frozen=True)
class Pace:
    """Seconds of a run's start beyond its epochs, of an epoch and of an evaluation."""

    start: float
    epoch: float
    evaluation: float

    def epochs(self, seconds: float) -> int:
        """The epochs of a run of so many seconds."""
        # Evaluated five times, and at the end on two kinds of other backgrounds, which cost more than the images as
        # they are.
        return max(1, int((seconds - self.start - 9 * self.evaluation) / self.epoch))


def pace(config: Any, splits: Any) -> Pace:
    """The times of the second of two epochs and of one evaluation."""
    from bgsweep.training.run import Run

    began = time.perf_counter()
    run = Run(config, splits=splits)
    run.training.step_epoch()
    warm = time.perf_counter()
    run.training.step_epoch()
    trained = time.perf_counter()
    run.evaluate()
    epoch = trained - warm
    return Pace(max(0.0, warm - began - epoch), epoch, time.perf_counter() - trained)


def rows(
    recipe: Recipe, method: str, arm: str, epochs: int, curve: Sequence[Mapping[str, float]]
) -> list[dict[str, Any]]:
    """A run's evaluations: those beside which there is a published value, and the last."""
    found, best = [], 0.0
    for each in curve:
        best = max(best, each["knn_top1"])
        epoch = int(each["epoch"])
        published = recipe.beside(epochs, epoch)
        if published is not None or epoch == epochs:
            found.append(
                {
                    "method": method,
                    "background": arm,
                    "epochs": epochs,
                    "epoch": epoch,
                    "knn_top1": each["knn_top1"],
                    "best": best,
                    "published": published,
                    "images_per_second": each["images_per_second"],
                    **{key: each[key] for key in ("mixed_rand", "bg_gap") if key in each},
                }
            )
    return found


def body(found: Sequence[Mapping[str, Any]], recipes: Mapping[str, Recipe], note: str) -> str:
    """The Markdown table of all runs, with what is otherwise than published."""
    lines = [
        [
            row["method"],
            row["background"],
            f"{row['epoch']} of {row['epochs']}",
            _percent(row["knn_top1"]),
            _percent(row["best"]),
            _percent(row["published"]),
            _percent(row.get("mixed_rand")),
            _percent(row.get("bg_gap")),
            f"{row['images_per_second']:.0f}",
        ]
        for row in found
    ]
    columns = ["method", "background", "epoch", "kNN, %", "best so far, %", "published, %"]
    columns += ["kNN on Mixed-Rand, %", "BG-Gap, %", "images/s"]
    differs = [f"- {name}: {recipes[name].differs}" for name in dict.fromkeys(row["method"] for row in found)]
    return "\n".join([markdown(columns, lines), "", note, "", "Differs:", *differs])


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"
