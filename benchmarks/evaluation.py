"""kNN during training and the linear probe at ImageNet's size, on synthetic features, before and after.

    python benchmarks/evaluation.py [--classes 1000 --per-class 100 --queries 50000 --width 2048] [--probe-rows 40000]

"Before" is the earlier algorithm: the bank normalised anew for every 256 queries; for the probe a standardised copy
of all features, a copy of those it is fitted on, and one-hot labels. kNN is timed on some of the queries (`--asked`),
by turns on the same bank; the time of all is in proportion. Times are CPU seconds of one core, which other work on
the machine hardly changes. Each part runs in a process of its own, so that its memory is its own.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import markdown, parser_of, report
from torch import Tensor

from bgsweep.config import Knn, Linear
from bgsweep.evaluation import features as storage
from bgsweep.evaluation.evaluators import knn, linear
from bgsweep.evaluation.features import Features, joined

MIB = 1 << 20


def features_of(rows: int, classes: int, width: int, seed: int = 0) -> Features:
    """Features around a centre for each class, made in parts, as an encoder gives them."""

    def parts() -> Any:
        centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(7))
        for first in range(0, rows, 1024):
            count = min(1024, rows - first)
            generator = torch.Generator().manual_seed(seed * rows + first)
            labels = torch.arange(first, first + count) % classes
            yield Features(centres[labels] + 3 * torch.randn(count, width, generator=generator), labels)

    return joined(parts(), rows)


def earlier_knn(bank: Features, queries: Tensor, settings: Knn, classes: int) -> Tensor:
    """kNN before: the bank is normalised for every part of the queries."""
    votes = []
    for part in queries.split(256):
        asked = F.normalize(part, dim=1)
        best, labels = asked.new_empty(len(asked), 0), bank.labels.new_empty(len(asked), 0)
        for entries, named in zip(bank.values.split(65_536), bank.labels.split(65_536), strict=True):
            near, places = knn._nearest(asked @ F.normalize(entries, dim=1).t(), settings.k)
            labels = torch.cat([labels, named[places]], dim=1)
            best, places = knn._nearest(torch.cat([best, near], dim=1), settings.k)
            labels = labels.gather(1, places)
        weights = ((best.double() - best[:, :1].double()) / settings.temperature).exp()
        votes.append(weights.new_zeros(len(asked), classes).scatter_add_(1, labels, weights))
    return torch.cat(votes).argmax(dim=1)


def earlier_probe(train: Features, settings: Linear, classes: int) -> None:
    """The probe before: three copies of the features and one-hot labels; its arithmetic is the same."""
    values = (train.values - train.values.mean(dim=0)) / train.values.std(dim=0).clamp_min(1e-6)
    fitted, held = linear._stratified(train.labels, settings)
    grid = [(lr, decay) for lr in settings.lrs for decay in settings.weight_decays]
    chosen, labels = values[fitted], train.labels[fitted]
    targets = F.one_hot(labels, classes).float()
    weight, bias = torch.zeros(len(grid), values.shape[1], classes), torch.zeros(len(grid), 1, classes)
    velocity = torch.zeros_like(weight)
    rates = torch.tensor([lr for lr, _ in grid]).view(-1, 1, 1)
    decays = torch.tensor([decay for _, decay in grid]).view(-1, 1, 1)
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(chosen)).split(256):
            batch = chosen[rows]
            error = ((batch @ weight + bias).softmax(dim=2) - targets[rows]) / len(rows)
            velocity.mul_(0.9).add_(batch.t() @ error + decays * weight)
            weight.sub_(rates * velocity)
    logits = torch.einsum("nd,gdc->gnc", values[held], weight) + bias
    (logits.argmax(dim=2) == train.labels[held]).float().mean(dim=1)


def timed(call: Callable[[], Any]) -> float:
    """CPU seconds."""
    began = time.process_time()
    call()
    return time.process_time() - began


def resident() -> float:
    """MiB of this process that the kernel cannot take back, unlike pages of the features' file."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


def knn_rows(options: argparse.Namespace) -> dict[str, float]:
    """CPU seconds for all queries, before and after, by turns."""
    bank = features_of(options.classes * options.per_class, options.classes, options.width)
    asked = features_of(options.asked, options.classes, options.width, seed=1).values
    found: list[Tensor] = []
    earlier, now = [], []
    for _ in range(options.rounds):
        earlier.append(timed(lambda: found.append(earlier_knn(bank, asked, Knn(), options.classes))))
        now.append(timed(lambda: found.append(knn.knn_predict(bank, asked, Knn(), options.classes))))
    # The bank is normalised once, whatever the number of queries: not in proportion to them.
    once = min(timed(lambda: [F.normalize(part, dim=1) for part in bank.values.split(65_536)]) for _ in range(3))
    scale = options.queries / options.asked
    return {
        "before_s": min(earlier) * scale,
        "after_s": (max(0.0, min(now) - once)) * scale + once,
        "agree": (found[0] == found[1]).float().mean().item(),
        "bank_mib": bank.nbytes / MIB,
    }


def probe_rows(options: argparse.Namespace, earlier: bool) -> dict[str, float]:
    """Images a CPU second, in the pass over the fitted part and in the final one, and memory above the start."""
    settings = Linear(epochs=1, lrs=(0.1,), weight_decays=(0.0,))
    if not earlier:
        storage.IN_MEMORY = options.limit_mib * MIB
    train = features_of(options.probe_rows, options.classes, options.width)
    watch = _Watch()
    seconds = timed(
        lambda: (
            earlier_probe(train, settings, options.classes)
            if earlier
            else linear.fit_linear(train, settings, options.classes)
        )
    )
    passes = 0.8 if earlier else 1.8  # the earlier one is stopped before its final fit
    return {
        "seconds": seconds,
        "images_s": passes * options.probe_rows / seconds,
        "most_mib": watch.most(),
        "features_mib": 0.0 if train.scales is not None else train.nbytes / MIB,
    }


class _Watch:
    """The most memory in use while it watches, above that at its start, without the features."""

    def __init__(self) -> None:
        import threading

        self._start, self._most, self._on = resident(), 0.0, True
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while self._on:
            self._most = max(self._most, resident())
            time.sleep(0.01)

    def most(self) -> float:
        self._on = False
        self._thread.join()
        return self._most - self._start


def alone(part: str) -> dict[str, float]:
    """A part in a process of its own, where nothing else has used memory."""
    done = subprocess.run([sys.executable, *sys.argv, "--part", part], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = parser_of(__doc__ or "")
    for name, value, words in (
        ("classes", 1000, "classes"),
        ("per-class", 100, "images of the bank for each class"),
        ("queries", 50_000, "validation images"),
        ("asked", 512, "of them that are timed"),
        ("width", 2048, "numbers in a feature"),
        ("rounds", 2, "turns"),
        ("probe-rows", 40_000, "training images of the probe"),
        ("limit-mib", 64, "size from which the probe's features are in a file"),
    ):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"{words} ({value})")
    parser.add_argument("--part", choices=("knn", "probe", "earlier-probe"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.part:
        run: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
            "knn": knn_rows,
            "probe": lambda given: probe_rows(given, earlier=False),
            "earlier-probe": lambda given: probe_rows(given, earlier=True),
        }
        print(json.dumps(run[options.part](options)))
        return
    near, before, after = alone("knn"), alone("earlier-probe"), alone("probe")
    size = f"{options.classes} x {options.per_class} images, {options.queries} queries"
    rows = [
        [f"kNN, {size}: CPU seconds", f"{near['before_s']:.0f}", f"{near['after_s']:.0f}"],
        [
            f"probe, {options.probe_rows} images: images a CPU second",
            *(f"{one['images_s']:.0f}" for one in (before, after)),
        ],
        [
            "probe: memory with features",
            *(f"{one['most_mib'] + one['features_mib']:.0f} MiB" for one in (before, after)),
        ],
    ]
    words = (
        f"Features of {options.width} numbers, {options.classes} classes, one thread. kNN on {options.asked} queries, "
        f"scaled; both give the same class for {near['agree']:.2%} of them. The probe trains one pair of rate and "
        "decay; a grid of 16 is sixteen times the arithmetic, without more memory for the features."
    )
    body = f"{markdown(('', 'before', 'after'), rows)}\n\n{words}"
    whole = near["before_s"] * 1_281_167 / (options.classes * options.per_class)
    body += (
        f" With all 1,281,167 training images as bank, as it was, kNN before is {whole:.0f} CPU seconds in proportion."
    )
    report(options, "Evaluation at ImageNet's size", "python benchmarks/evaluation.py", body, [near, before, after])


if __name__ == "__main__":
    main()
