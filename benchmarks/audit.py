"""Cost of `bgsweep audit`: seconds of a core and images encoded, by measure.

    python benchmarks/audit.py IMAGES MASKS [--limit 300]

The encoder is a ResNet-50 with random weights. Numbers of images follow from the measures; seconds are of the process,
all its threads together, so that other programs on the machine hardly change them.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import torch
from common import machine, markdown
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torchvision.models import resnet50

from bgsweep.evaluation.audit.measure import Found, Measure
from bgsweep.evaluation.audit.measures import MEASURES
from bgsweep.evaluation.audit.subject import Subject
from bgsweep.models import ImageEncoder
from bgsweep.workflows.audit import audit


class Cost:
    """Seconds and images by measure, as measures run."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, float]] = []
        self._images = 0
        register_module_forward_pre_hook(self._count)

    def _count(self, module: nn.Module, given: Any) -> None:
        if isinstance(module, ImageEncoder):
            self._images += len(given[0])

    def of(self, name: str, run: Callable[[Subject], Found]) -> Callable[[Subject], Found]:
        """The measure's function, which is written down as it ends."""

        def measured(subject: Subject) -> Found:
            images, began = self._images, process_time()
            try:
                return run(subject)
            finally:
                self.rows.append((name, self._images - images, process_time() - began))

        return measured


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("masks", type=Path)
    parser.add_argument("--limit", type=int, default=1000, help="largest number of images; default %(default)s")
    options = parser.parse_args(arguments)
    cost = Cost()
    measures: list[Measure] = [replace(one, run=cost.of(one.name, one.run)) for one in MEASURES]
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        weights = Path(folder) / "random.pth"
        torch.save(resnet50().state_dict(), weights)
        began = process_time()
        page, store = Path(folder) / "page.html", Path(folder) / "store"
        audit([f"resnet50={weights}"], options.images, options.masks, page, store, options.limit, measures=measures)
        whole = process_time() - began
    images, seconds = sum(row[1] for row in cost.rows), sum(row[2] for row in cost.rows)
    rows = [*cost.rows, ("images, intervals and page", 0, whole - seconds), ("all", images, whole)]
    lines = [(name, str(count), f"{taken:.0f}") for name, count, taken in rows]
    print(markdown(["measure", "images encoded", "s of a core"], lines))
    print(machine())


if __name__ == "__main__":
    main()
