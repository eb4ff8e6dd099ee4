"""The linear probe: all pairs at once equal one at a time, and the choice never sees the evaluated split."""

import math

import pytest
import torch

from bgsweep.config import Linear
from bgsweep.evaluation.evaluators.linear import BATCH_SIZE, MOMENTUM, _Source, _stratified, _train, fit_linear
from bgsweep.evaluation.features import Features, accuracy


def clouds(count: int, spread: float, seed: int = 0) -> Features:
    """Three clouds of features that overlap more the larger the spread is."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    centres = torch.randn(3, 12, generator=torch.Generator().manual_seed(7)) * 2
    return Features(centres[labels] + spread * torch.randn(count, 12, generator=generator), labels)


def test_the_grid_equals_one_pair_at_a_time_with_torchs_sgd() -> None:
    data, settings = clouds(600, 2.0), Linear(epochs=4)
    grid = [(0.03, 0.0), (0.3, 1e-2), (0.1, 1e-3)]
    source = _Source(data, torch.device("cpu"))
    weight, bias = _train(source, torch.arange(600), grid, settings, 3)
    values = (data.values - data.values.mean(dim=0)) / data.values.std(dim=0)
    for place, (lr, decay) in enumerate(grid):
        layer = torch.nn.Linear(12, 3)
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        parameters = [{"params": [layer.weight], "weight_decay": decay}, {"params": [layer.bias]}]
        optimizer = torch.optim.SGD(parameters, lr=lr, momentum=MOMENTUM)
        generator, step, steps = torch.Generator().manual_seed(settings.seed), 0, 4 * math.ceil(600 / BATCH_SIZE)
        # torch multiplies the velocity by the current rate as ours does, so that the schedule can be set on the group.
        for _ in range(4):
            for rows in torch.randperm(600, generator=generator).split(BATCH_SIZE):
                for group in optimizer.param_groups:
                    group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(layer(values[rows]), data.labels[rows]).backward()
                optimizer.step()
                step += 1
        torch.testing.assert_close(weight[place].t(), layer.weight.data, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(bias[place], layer.bias.data, rtol=1e-4, atol=1e-5)


def test_separable_features_are_separated_and_noise_is_not() -> None:
    easy = fit_linear(clouds(300, 0.3), Linear(), 3)
    test = clouds(300, 0.3, seed=1)
    assert accuracy(easy.predict(test.values), test.labels) > 0.99
    noise = Features(torch.randn(300, 12, generator=torch.Generator().manual_seed(0)), torch.arange(300) % 3)
    assert fit_linear(noise, Linear(), 3).held_out_top1 < 0.5


def test_scale_of_features_does_not_matter() -> None:
    data, test = clouds(300, 3.0), clouds(200, 3.0, seed=1)
    scaled = Features(data.values * 1000 + 5, data.labels)
    first, second = fit_linear(data, Linear(), 3), fit_linear(scaled, Linear(), 3)
    same = (first.predict(test.values) == second.predict(test.values * 1000 + 5)).float().mean()
    assert same > 0.98


@pytest.mark.parametrize("counts", [(50, 50), (40, 3), (5, 1)])
def test_the_held_out_part_is_a_share_of_every_class(counts: tuple[int, int]) -> None:
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    fitted, held = _stratified(labels, Linear(holdout=0.2))
    assert sorted([*fitted.tolist(), *held.tolist()]) == list(range(len(labels)))
    for label, count in enumerate(counts):
        expected = 0 if count == 1 else max(1, round(0.2 * count))
        assert int((labels[held] == label).sum()) == expected
        assert bool((labels[fitted] == label).any())
