"""Synchronised BatchNorm: alone it is torch's own; what several workers do together is in `test_two_workers`."""

import copy

import pytest
import torch
from torch import nn

from bgsweep.models import convert_sync_bn
from bgsweep.models.sync_batchnorm import SyncBatchNorm, _OnGPU
from tests.fake_gpu import SYNC_BATCH_NORM


def test_without_a_process_group_it_needs_none() -> None:
    synced = convert_sync_bn(nn.BatchNorm1d(3))
    values = torch.randn(4, 3)
    torch.testing.assert_close(synced(values), nn.BatchNorm1d(3)(values))


@pytest.mark.parametrize(
    ("plain", "shape"), [(nn.BatchNorm1d(5), (6, 5)), (nn.BatchNorm1d(5), (2, 5, 3)), (nn.BatchNorm2d(5), (4, 5, 3, 2))]
)
@pytest.mark.parametrize(("mean", "dtype"), [(0, torch.float32), (1000, torch.float32), (1, torch.bfloat16)])
def test_alone_it_is_batch_norm(
    alone: None, plain: nn.Module, shape: tuple[int, ...], mean: float, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    plain = copy.deepcopy(plain)
    nn.init.normal_(plain.weight)
    nn.init.normal_(plain.bias)
    synced = convert_sync_bn(plain)
    assert isinstance(synced, SyncBatchNorm)
    plain = plain.double()  # torch's own loses digits to a large mean
    near = {"rtol": 1e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {"rtol": 1e-3, "atol": 1e-3}
    for _ in range(2):
        values = (torch.randn(shape) + mean).to(dtype)
        inputs = [values.double().requires_grad_(), values.clone().requires_grad_()]
        outputs = [module(value) for module, value in zip((plain, synced), inputs, strict=True)]
        assert outputs[1].dtype == dtype
        weight = torch.randn(shape)
        for output in outputs:
            (output * weight).sum().backward()
        compared = [(outputs[1], outputs[0]), (inputs[1].grad, inputs[0].grad)]
    compared += [(ours.grad, theirs.grad) for ours, theirs in zip(synced.parameters(), plain.parameters(), strict=True)]
    compared += list(zip(synced.state_dict().values(), plain.state_dict().values(), strict=True))
    compared.append((synced.eval()(values), plain.eval()(values.double())))
    for ours, theirs in compared:
        torch.testing.assert_close(ours.double(), theirs.double(), **near)


def test_conversion_keeps_names_values_and_what_learns() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4, eps=1e-3)))
    model[2].requires_grad_(False)
    model(torch.randn(5, 3, 2, 2))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    converted = convert_sync_bn(model)
    assert [type(module) for module in converted.modules()].count(SyncBatchNorm) == 2
    assert converted[2][0].eps == 1e-3
    assert converted.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in converted.state_dict().items())
    assert [parameter.requires_grad for parameter in converted.parameters()] == [True] * 4 + [False] * 2


@pytest.mark.parametrize("shape", [(6, 5), (4, 5, 3, 2)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_with_a_gpu_s_kernels_it_is_batch_norm_too(
    alone: None, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], channels_last: bool
) -> None:
    for name, kernel in SYNC_BATCH_NORM.items():
        monkeypatch.setattr(torch, name, kernel)
    torch.manual_seed(0)
    plain = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(5)
    nn.init.normal_(plain.weight)
    nn.init.normal_(plain.bias)
    synced = convert_sync_bn(copy.deepcopy(plain))
    values, weight = torch.randn(shape) + 1, torch.randn(shape)
    if channels_last and len(shape) == 4:
        values = values.to(memory_format=torch.channels_last)
    first, second = values.clone().requires_grad_(), values.clone().requires_grad_()
    expected = plain(first)
    statistics = (synced.running_mean, synced.running_var, synced.momentum, synced.eps)
    found = _OnGPU.apply(second, synced.weight, synced.bias, *statistics)
    for output in (expected, found):
        (output * weight).sum().backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(second.grad, first.grad, rtol=1e-4, atol=1e-5)
    for name in ("weight", "bias"):
        torch.testing.assert_close(getattr(synced, name).grad, getattr(plain, name).grad)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(synced, name), getattr(plain, name))
