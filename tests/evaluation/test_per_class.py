"""Mean-per-class accuracy against the slow, obvious way."""

import numpy as np
import pytest
import torch

from bgsweep.config import Evaluate, Linear, SuiteConfig
from bgsweep.data import Image, Sample, Splits
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.evaluator import per_class
from bgsweep.evaluation.registry import open_evaluators
from tests.evaluation.subjects import model_of


def slow(predicted: list[int], labels: list[int]) -> float:
    """The mean over the classes that there are."""
    accuracies = []
    for wanted in sorted(set(labels)):
        of_class = [guess == wanted for guess, label in zip(predicted, labels, strict=True) if label == wanted]
        accuracies.append(sum(of_class) / len(of_class))
    return sum(accuracies) / len(accuracies)


def test_classes_count_alike_whatever_their_size() -> None:
    # 8 of 9 right, 1 of 3, and class 1 has no image: (8/9 + 1/3) / 2, where the accuracy of all is 9/12.
    labels = [0] * 9 + [2] * 3
    predicted = [0] * 8 + [2] + [2, 0, 1]
    found = per_class("mean", np.array(predicted) == np.array(labels), np.array(labels))
    assert found.value == pytest.approx((8 / 9 + 1 / 3) / 2) == slow(predicted, labels)


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_slow_way(seed: int) -> None:
    draws = np.random.default_rng(seed)
    labels = draws.choice(6, size=200, p=[0.6, 0.2, 0.1, 0.05, 0.04, 0.01])
    predicted = np.where(draws.random(200) < 0.6, labels, draws.integers(6, size=200))
    found = per_class("mean", torch.from_numpy(predicted == labels), torch.from_numpy(labels))
    assert found.value == pytest.approx(slow(predicted.tolist(), labels.tolist()))
    assert found.value != pytest.approx(float((predicted == labels).mean()))


class Flat:
    """Images of one colour, drawn around that of the class; classes overlap, and have different numbers of images."""

    has_masks = False

    def __init__(self, name: str, counts: list[int], seed: int) -> None:
        draws = np.random.default_rng(seed)
        self.name, self.classes = name, ["few", "more", "most"]
        self.labels = np.repeat(np.arange(len(counts)), counts)
        self.ids = [f"{number}.png" for number in range(len(self.labels))]
        shades = (60 + 40 * self.labels[:, None] + draws.normal(0, 25, (len(self.labels), 3))).clip(0, 255)
        self._images = [np.broadcast_to(each, (16, 16, 3)).astype(np.uint8) for each in shades]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        image: Image = self._images[index]
        return Sample(self.ids[index], image, int(self.labels[index]), None)

    def digests(self) -> dict[str, str]:
        return {"images": self.name, "masks": ""}


def test_knn_and_linear_give_the_mean_over_classes() -> None:
    test = Flat("test", [5, 20, 60], 1)
    splits = Splits(Flat("train", [10, 20, 40], 0), test, test)
    settings = Evaluate(linear=Linear(epochs=20))
    context = EvalContext(model_of(), SuiteConfig(evaluate=settings, size=16), splits)
    for name, evaluator in open_evaluators(context, ["knn", "linear"]).items():
        values = {one.name: one for one in evaluator.run(name).values}
        right = values[f"{name}_top1"].hits
        # A wrong image's guess does not matter: any other class.
        guesses = np.where(right == 1, test.labels, (test.labels + 1) % 3)
        assert values[f"{name}_mean_per_class"].value == pytest.approx(slow(guesses.tolist(), test.labels.tolist()))
        assert abs(values[f"{name}_mean_per_class"].value - right.mean()) > 0.01
