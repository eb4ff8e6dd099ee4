"""The published linear evaluations: their schedules, and that they learn whatever the number of threads."""

from dataclasses import replace

import pytest
import torch

from bgsweep.config import Pictures, SuiteFile
from bgsweep.data import Splits
from bgsweep.evaluation.examination import Examination
from bgsweep.evaluation.linear_protocols import PROTOCOLS, fit, published

from .subjects import subject


def rates(name: str, steps_per_epoch: int = 3) -> list[float]:
    protocol = PROTOCOLS[name]
    steps = protocol.epochs * steps_per_epoch
    return [protocol.rate(step // steps_per_epoch, step / steps) for step in range(steps)]


def scheduled(name: str, kind: str, steps_per_epoch: int = 3) -> list[float]:
    """The same from torch's schedulers."""
    protocol = PROTOCOLS[name]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=protocol.lr)
    steps = protocol.epochs * (1 if kind != "step" else steps_per_epoch)
    scheduler: torch.optim.lr_scheduler.LRScheduler = (
        torch.optim.lr_scheduler.MultiStepLR(optimizer, [60, 80], 0.1)
        if kind == "milestones"
        else torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    )
    found = []
    for _ in range(steps):
        found += [optimizer.param_groups[0]["lr"]] * (1 if kind == "step" else steps_per_epoch)
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("name", "kind"), [("linear_moco", "milestones"), ("linear_swav", "epoch"), ("linear_byol", "step")]
)
def test_the_rates_are_torchs(name: str, kind: str) -> None:
    assert rates(name) == pytest.approx(scheduled(name, kind), rel=1e-6, abs=1e-9)


def test_mocos_settings() -> None:
    moco = PROTOCOLS["linear_moco"]
    assert (moco.epochs, moco.batch_size, moco.lr, moco.weight_decay, moco.weights) == (100, 256, 30.0, 0.0, 0.01)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_it_learns_the_same_with_one_thread_or_four(name: str, splits: Splits) -> None:
    layers = []
    for threads in (1, 4):
        file = SuiteFile(size=32, pictures=Pictures(resize=36, crop=32), threads=threads)
        exam = Examination(subject(), file, splits)
        layers.append(fit(exam, replace(PROTOCOLS[name], epochs=1)))
    assert torch.equal(layers[0].weight, layers[1].weight)
    prepared = published(exam, name, replace(PROTOCOLS[name], epochs=8, batch_size=64))
    first, fifth = prepared.measure()
    assert (first.name, fifth.name) == (f"{name}_top1", f"{name}_top5")
    assert 0.12 < first.value < fifth.value
    assert prepared.protocol()["lr"] == PROTOCOLS[name].lr
