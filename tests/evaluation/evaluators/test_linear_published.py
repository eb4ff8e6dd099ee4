"""The published linear evaluations: their schedules, and that they learn whatever the number of threads."""

import random
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor
from torchvision import transforms

from bgsweep.config import Preprocessing, SuiteConfig
from bgsweep.data import Splits
from bgsweep.data.datasets.wrappers import Subset
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets import crops
from bgsweep.evaluation.evaluators.linear_published import PROTOCOLS, fit, published
from tests.evaluation.subjects import subject


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


def test_byols_images_are_cut_before_they_are_resized(splits: Splits) -> None:
    part = Subset(splits.test, np.arange(12), "twelve")
    seen = Preprocessing(resize=32, crop=28)
    ((images, _),) = crops.test_squares(part, seen, 256, "byol")
    for index, image in enumerate(images):
        picture = PIL.Image.fromarray(part[index].image)
        side = int(224 / 256 * min(picture.size))
        left, top = (picture.width - side + 1) // 2, (picture.height - side + 1) // 2
        box = (left, top, left + side, top + side)
        slow = picture.resize((28, 28), PIL.Image.Resampling.BICUBIC, box=box)
        assert np.abs(image.astype(int) - np.array(slow)).mean() < 4  # Pillow looks beyond a box's edge
    ((others, _),) = crops.test_squares(part, seen, 256)
    see = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(28)])
    np.testing.assert_array_equal(others[0], np.array(see(PIL.Image.fromarray(part[0].image))))
    assert (images != others).any()


def test_byols_windows_are_drawn_once_and_cut_off() -> None:
    """Of tall images more windows than torchvision's are as wide as the image, and some of odd aspects."""
    draws = random.Random(0)
    found = [crops._cut_window(300, 100, draws) for _ in range(4000)]
    assert all(0 <= one.top < one.bottom <= 300 and 0 <= one.left < one.right <= 100 for one in found)
    whole = np.array([one.width == 100 for one in found])
    # A window of area a and aspect r is wider than a third of the height where a r > 1 / 3.
    areas, logs = np.random.default_rng(0).uniform(0.08, 1, 200_000), np.random.default_rng(1).uniform(-1, 1, 200_000)
    assert whole.mean() == pytest.approx((areas * (4 / 3) ** logs > 1 / 3).mean(), abs=0.03)
    assert min(one.width / one.height for one in found) < 0.7  # torchvision's would be 3 / 4


def test_test_images_are_encoded_once_for_all_published_evaluations(splits: Splits) -> None:
    seen = 0

    def counting(images: Tensor) -> Tensor:
        nonlocal seen
        seen += len(images)
        return who.encode(images)

    who = subject()
    context = EvalContext(
        replace(who, encode=counting), SuiteConfig(preprocessing=Preprocessing(resize=36, crop=32)), splits
    )
    for name in ("linear_moco", "linear_swav"):
        list(published(context, name, replace(PROTOCOLS[name], epochs=1)).measure())
    assert seen == 2 * len(splits.train) + len(splits.test)


def test_mocos_settings() -> None:
    moco = PROTOCOLS["linear_moco"]
    assert (moco.epochs, moco.batch_size, moco.lr, moco.weight_decay, moco.weights) == (100, 256, 30.0, 0.0, 0.01)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_it_learns_the_same_with_one_thread_or_four(name: str, splits: Splits) -> None:
    layers = []
    for threads in (1, 4):
        file = SuiteConfig(size=32, preprocessing=Preprocessing(resize=36, crop=32), threads=threads)
        context = EvalContext(subject(), file, splits)
        layers.append(fit(context, replace(PROTOCOLS[name], epochs=1)))
    assert torch.equal(layers[0].weight, layers[1].weight)
    prepared = published(context, name, replace(PROTOCOLS[name], epochs=8, batch_size=64))
    first, fifth = prepared.measure()
    assert (first.name, fifth.name) == (f"{name}_top1", f"{name}_top5")
    assert 0.12 < first.value < fifth.value
    assert prepared.protocol()["lr"] == PROTOCOLS[name].lr
