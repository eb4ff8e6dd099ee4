"""Optimisers: LARS against its equations element by element, and which parameters are decayed and adapted."""

import copy
import math

import pytest
import torch
from torch import nn

from bgsweep.config import Optimizer
from bgsweep.training.lars import LARS
from bgsweep.training.optimizer import build_optimizer, clip_gradients

Vector = list[float]


class Reference:
    """LARS for one tensor, on plain Python numbers."""

    def __init__(self, values: Vector, momentum: float, weight_decay: float, trust: float | None) -> None:
        self.values, self.momentum, self.weight_decay, self.trust = list(values), momentum, weight_decay, trust
        self.moving = [0.0] * len(values)

    def step(self, gradient: Vector, lr: float) -> None:
        update = [g + self.weight_decay * p for g, p in zip(gradient, self.values, strict=True)]
        lengths = [math.sqrt(sum(value * value for value in vector)) for vector in (self.values, update)]
        if self.trust is not None and all(lengths):
            update = [self.trust * lengths[0] / lengths[1] * g for g in update]
        self.moving = [self.momentum * m + g for m, g in zip(self.moving, update, strict=True)]
        self.values = [p - lr * m for p, m in zip(self.values, self.moving, strict=True)]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_lars_equals_its_equations(momentum: float, weight_decay: float) -> None:
    generator = torch.Generator().manual_seed(3)
    shapes = [(4, 3), (2, 3, 3, 3), (7,), (2, 2), (3, 1)]
    tensors = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    nn.init.zeros_(tensors[3])  # a weight of length zero is not scaled
    groups = [{"params": tensors[:2]}, {"params": tensors[2:3], "trust": None, "weight_decay": 0.0}]
    lars = LARS([*groups, {"params": tensors[3:]}], 0.0, momentum, weight_decay, 0.02)
    options = [(weight_decay, 0.02)] * 2 + [(0.0, None)] + [(weight_decay, 0.02)] * 2
    slow = [
        Reference(tensor.detach().flatten().tolist(), momentum, decay, trust)
        for tensor, (decay, trust) in zip(tensors, options, strict=True)
    ]
    for step in range(6):
        rate = 0.5 / (step + 1)
        for group in lars.param_groups:
            group["lr"] = rate
        for number, (tensor, reference) in enumerate(zip(tensors, slow, strict=True)):
            tensor.grad = torch.randn(tensor.shape, generator=generator)
            if number == 4:
                tensor.grad = None if step < 2 else torch.zeros(tensor.shape)
            if tensor.grad is not None:
                reference.step(tensor.grad.flatten().tolist(), rate)
        lars.step()
        for tensor, reference in zip(tensors, slow, strict=True):
            torch.testing.assert_close(tensor.detach().flatten(), torch.tensor(reference.values), rtol=1e-5, atol=1e-6)


def test_lars_leaves_gradients_alone_and_is_taken_up_where_it_was_put_down() -> None:
    first = nn.Linear(5, 4)
    second = copy.deepcopy(first)
    optimizers = [LARS(module.parameters(), 0.3, weight_decay=0.1) for module in (first, second)]

    def step(module: nn.Linear, optimizer: LARS, seed: int) -> None:
        for parameter in module.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
        before = [parameter.grad.clone() for parameter in module.parameters()]
        optimizer.step()
        assert all(torch.equal(a, p.grad) for a, p in zip(before, module.parameters(), strict=True))

    for seed in range(3):
        step(first, optimizers[0], seed)
        step(second, optimizers[1], seed)
        fresh = LARS(second.parameters(), 1.0)
        fresh.load_state_dict(optimizers[1].state_dict())
        optimizers[1] = fresh
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 2)


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
@pytest.mark.parametrize("decay_all", [True, False])
def test_biases_and_norms_are_left_out_where_that_is_asked(name: str, decay_all: bool) -> None:
    """With gradients of zero, weight decay is all that moves a parameter."""
    model = Small()
    before = {key: parameter.clone() for key, parameter in model.named_parameters()}
    config = Optimizer.model_validate({"name": name, "lr": 0.1, "weight_decay": 0.5, "decay_all": decay_all})
    optimizer = build_optimizer(config, model)
    with torch.no_grad():
        model.norm.bias.fill_(1.0)
    before["norm.bias"] = model.norm.bias.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {key for key, parameter in model.named_parameters() if not torch.equal(parameter, before[key])}
    weights = {"conv.weight", "linear.weight"}
    assert moved == (weights | {"conv.bias", "norm.weight", "norm.bias", "linear.bias"} if decay_all else weights)


def test_lars_does_not_adapt_biases_and_norms() -> None:
    config = Optimizer(name="lars", lr=0.1, weight_decay=0.0, decay_all=False, trust=0.01)
    model = Small()
    before = {key: parameter.clone() for key, parameter in model.named_parameters()}
    optimizer = build_optimizer(config, model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for key, parameter in model.named_parameters():
        step = (before[key] - parameter).detach()
        if key.startswith("frozen"):
            assert not step.any()
        elif key.endswith("bias") or key.startswith("norm"):
            torch.testing.assert_close(step, torch.full_like(step, 0.1))
        else:
            assert step.norm().item() == pytest.approx(0.1 * 0.01 * before[key].norm().item(), rel=1e-3)


def test_sgd_equals_torchs_plain_one_and_takes_late_gradients() -> None:
    model = Small()
    twin = copy.deepcopy(model)
    ours = build_optimizer(Optimizer(lr=0.1, weight_decay=0.01), model)
    learning = [parameter for parameter in twin.parameters() if parameter.requires_grad]
    theirs = torch.optim.SGD(learning, 0.1, 0.9, weight_decay=0.01, foreach=False)
    for step in range(4):
        for module in (model, twin):
            generator = torch.Generator().manual_seed(step)
            for parameter in module.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            if step < 2:
                module.linear.weight.grad = None
        ours.step()
        theirs.step()
    for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter, other)


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("limit", [0.1, 5.0, 1e3])
def test_gradients_are_clipped_to_a_norm_as_torch_clips_them(limit: float, each: bool) -> None:
    model = Small()
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * number
    model.linear.bias.grad = None
    twin = copy.deepcopy(model)
    for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
        other.grad = None if parameter.grad is None else parameter.grad.clone()
    for group in [[parameter] for parameter in twin.parameters()] if each else [list(twin.parameters())]:
        nn.utils.clip_grad_norm_(group, limit)
    clip_gradients(Optimizer(clip_norm=limit, clip_each=each), model)
    for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
        if parameter.grad is None or other.grad is None:
            assert parameter.grad is other.grad is None
        else:
            torch.testing.assert_close(parameter.grad, other.grad)
