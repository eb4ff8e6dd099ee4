"""An evaluation at ImageNet's size as the product runs it: features into the store, mapped again, kNN, linear probe.

    python benchmarks/imagenet_size.py [--rows 1281167 --width 2048] --store FOLDER

Features are synthetic, around a centre for each class, and go the way of an encoder's: in batches into a temporary
file, from there into the store (twice 5.2 GB of disk), from which a second call maps them. kNN takes `--asked` queries,
the probe `--steps` steps of the whole grid on rows of the whole set; the words below the table have the arithmetic for
the rest. Each part runs in a process of its own, so that its memory is its own.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import markdown, parser_of, report
from evaluation import alone, features_of

from bgsweep.config import Knn, Linear
from bgsweep.evaluation.evaluators import linear
from bgsweep.evaluation.evaluators.knn import knn_predict
from bgsweep.evaluation.features import Features
from bgsweep.evaluation.kept import KeptFeatures

QUERIES = 50_000


def train_features(options: argparse.Namespace) -> Features:
    """The training features, from the store if they are there."""
    kept = KeptFeatures(options.store)
    return kept.once("train", lambda: features_of(options.rows, options.classes, options.width))


def written(options: argparse.Namespace) -> dict[str, float]:
    """Make the features and keep them."""
    with _Memory() as memory:
        began = time.process_time()
        train_features(options)
        return {"seconds": time.process_time() - began, **memory.most()}


def knn_part(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of two numbers of queries, which tell what the bank costs from what a query costs."""
    bank = train_features(options)
    asked = features_of(options.asked, options.classes, options.width, seed=1).values
    found = {}
    with _Memory() as memory:
        for name, count in (("few_s", 1), ("seconds", options.asked)):
            began = time.process_time()
            knn_predict(bank, asked[:count], Knn(), options.classes)
            found[name] = time.process_time() - began
        return found | memory.most()


def probe_part(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of the moments, of so many steps of all pairs of the grid, and of scoring as many rows."""
    train, settings = train_features(options), Linear(epochs=1)
    grid = [(lr, decay) for lr in settings.lrs for decay in settings.weight_decays]
    with _Memory() as memory:
        began = time.process_time()
        source = linear._Source(train, torch.device("cpu"))
        moments = time.process_time() - began
        some = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[: options.steps * 256]
        began = time.process_time()
        weight, _ = linear._train(source, some, grid, settings, options.classes)
        steps = time.process_time() - began
        began = time.process_time()
        for values, _ in source.batches(some.split(1024)):
            torch.einsum("nd,gdc->gnc", values, weight).argmax(dim=2)
        scoring = time.process_time() - began
        return {"moments_s": moments, "seconds": steps, "scoring_s": scoring, "pairs": len(grid), **memory.most()}


class _Memory:
    """The most memory of this process: its own, and with the pages of files that it maps, which the kernel can drop."""

    def __enter__(self) -> "_Memory":
        self._own, self._all, self._on = 0.0, 0.0, True
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def _look(self) -> None:
        while self._on:
            status = Path("/proc/self/status").read_text(encoding="utf-8")
            own, whole = (int(status.partition(name)[2].split()[0]) / 1e6 for name in ("RssAnon:", "VmRSS:"))
            self._own, self._all = max(self._own, own), max(self._all, whole)
            time.sleep(0.02)

    def most(self) -> dict[str, float]:
        return {"own_gb": self._own, "with_files_gb": self._all}

    def __exit__(self, *_: object) -> None:
        self._on = False
        self._thread.join()


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
    "written": written,
    "knn": knn_part,
    "probe": probe_part,
}


def body(found: dict[str, dict[str, Any]], options: argparse.Namespace) -> str:
    """The table, and the arithmetic for a whole evaluation."""
    near, probe, rows = found["knn"], found["probe"], options.rows
    each = (near["seconds"] - near["few_s"]) / max(1, options.asked - 1)
    step = probe["seconds"] / options.steps
    scored = probe["scoring_s"] / (options.steps * 256)
    whole = probe["moments_s"] + 0.8 * rows / 256 * step * Linear().epochs + 0.2 * rows * scored
    lines = [
        ("features made and kept", found["written"]["seconds"], found["written"]),
        (f"kNN, {options.asked} queries", near["seconds"], near),
        (f"probe, {options.steps} steps of {probe['pairs']} pairs", probe["seconds"], probe),
    ]
    table = markdown(
        ("", "s of a core", "GB of its own", "GB with mapped files"),
        [(name, f"{s:.0f}", f"{one['own_gb']:.2f}", f"{one['with_files_gb']:.2f}") for name, s, one in lines],
    )
    return (
        f"{table}\n\n{rows} x {options.width} features, {options.classes} classes. kNN: {near['few_s']:.0f} s for the "
        f"bank, {1000 * each:.0f} ms a query, so {(near['few_s'] + QUERIES * each) / 60:.0f} minutes of a core for "
        f"{QUERIES} queries. Probe: moments {probe['moments_s']:.0f} s, a step of all pairs {step:.2f} s, so with "
        f"{Linear().epochs} epochs of 0.8 of the rows and scoring {whole / 3600:.0f} hours of a core for the grid; the "
        "final fit is one pair more. Memory does not depend on queries or steps."
    )


def main() -> None:
    parser = parser_of(__doc__ or "")
    for name, value, words in (
        ("rows", 1_281_167, "training images"),
        ("classes", 1000, "classes"),
        ("width", 2048, "numbers in a feature"),
        ("asked", 512, "queries of kNN"),
        ("steps", 8, "steps of the probe"),
    ):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"{words} ({value})")
    parser.add_argument("--store", type=Path, required=True, help="folder for the features, which stay there")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(2)
    if options.part:
        print(json.dumps(PARTS[options.part](options)))
        return
    found = {}
    for part in PARTS:
        found[part] = alone(part)
        print(part, json.dumps(found[part]), file=sys.stderr, flush=True)
    report(
        options,
        "A whole evaluation at ImageNet's size",
        "python benchmarks/imagenet_size.py --store FOLDER",
        body(found, options),
        found,
    )


if __name__ == "__main__":
    main()
