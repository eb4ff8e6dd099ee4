"""BYOL: its loss against slow references and lightly's, its target, and what each part of it may touch."""

import math
from pathlib import Path

import lightly.loss
import pytest
import torch
from torch import nn

from bgsweep.config import BYOLConfig, Encoder
from bgsweep.methods.base import Views, target_momentum
from bgsweep.methods.byol import BYOL, byol_loss
from bgsweep.models import build_encoder, to_unit
from bgsweep.training import load_checkpoint, save_checkpoint
from tests.inputs import trainer_of

TINY = [
    "data={images: sample, resize: 24, cache: true, loader_workers: 0}",
    "views={size: 16, blur: [1.0, 0.1], solarize: [0.0, 0.2]}",
    "method={name: byol, hidden_dim: 32, embedding_dim: 16, momentum: 0.9}",
    "encoder={name: resnet10, width: 4, stem: small}",
    "optimizer={name: lars, lr: 2.0, weight_decay: 1.0e-6, decay_all: false, trust: 0.02}",
    "training={epochs: 3, batch_size: 320, precision: fp32, accumulate: 2}",
    "workers={device: cpu}",
]


def make(**changes: object) -> BYOL:
    torch.manual_seed(0)
    config = BYOLConfig.model_validate({"name": "byol", "hidden_dim": 16, "embedding_dim": 8, **changes})
    return BYOL(config, build_encoder(Encoder(name="resnet10", width=8, stem="small")))


def batch(size: int = 8) -> Views:
    generator = torch.Generator().manual_seed(1)
    pictures = [torch.randint(0, 256, (size, 16, 16, 3), dtype=torch.uint8, generator=generator) for _ in range(2)]
    return Views(pictures, torch.zeros(size, dtype=torch.long))


def pair(size: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(size * dim)
    return torch.randn(size, dim, generator=generator), torch.randn(size, dim, generator=generator) * 7


@pytest.mark.parametrize(("size", "dim"), [(1, 2), (5, 3), (32, 256)])
def test_loss_equals_the_equation(size: int, dim: int) -> None:
    prediction, target = pair(size, dim)
    expected = 0.0
    for row, other in zip(prediction.double().tolist(), target.double().tolist(), strict=True):
        norms = [math.sqrt(sum(value**2 for value in values)) for values in (row, other)]
        expected += sum((a / norms[0] - b / norms[1]) ** 2 for a, b in zip(row, other, strict=True)) / size
    assert byol_loss(prediction, target).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("size", "dim"), [(1, 2), (16, 64)])
def test_loss_equals_lightlys(size: int, dim: int) -> None:
    theirs = lightly.loss.NegativeCosineSimilarity()
    prediction, target = pair(size, dim)
    torch.testing.assert_close(byol_loss(prediction, target), 2 + 2 * theirs(prediction, target))


def test_loss_is_0_for_the_same_direction_and_4_for_the_opposite() -> None:
    prediction, _ = pair(6, 5)
    assert byol_loss(prediction, prediction * 3).item() == pytest.approx(0, abs=1e-6)
    assert byol_loss(prediction, -prediction).item() == pytest.approx(4)


def test_momentum_rises_along_a_cosine_to_one() -> None:
    assert target_momentum(0.99, 0.0) == pytest.approx(0.99)
    assert target_momentum(0.99, 0.5) == pytest.approx(0.995)
    assert target_momentum(0.99, 0.25) == pytest.approx(1 - 0.01 * (1 + math.sqrt(0.5)) / 2)
    assert target_momentum(0.99, 1.0) == 1
    course = [target_momentum(0.6, step / 50) for step in range(51)]
    assert course == sorted(course)


def test_heads_are_those_of_the_published_code() -> None:
    method = BYOL(BYOLConfig(name="byol"), build_encoder(Encoder(name="resnet10", width=8, stem="small")))
    for head, features in ((method.projector, 64), (method.predictor, 256)):
        first, norm, rectifier, last = head
        assert (first.in_features, first.out_features, first.bias is None) == (features, 4096, False)
        assert isinstance(norm, nn.BatchNorm1d)
        assert isinstance(rectifier, nn.ReLU)
        assert (last.in_features, last.out_features, last.bias is None) == (4096, 256, True)


def test_loss_is_symmetric_and_within_its_bounds() -> None:
    views = batch()
    there, back = (make()(Views(images, views.labels)).loss.item() for images in (views.images, views.images[::-1]))
    assert there == pytest.approx(back, rel=1e-5)
    assert 0 < there < 8


def test_each_network_sees_each_view_by_itself() -> None:
    method, views = make(), batch()
    seen: list[int] = []
    for network in (method.encoder, method.target_network):
        network.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    loss = method(views).loss
    assert seen == [8, 8, 8, 8]
    twin = make()
    losses = []
    for online, target in (views.images, views.images[::-1]):
        prediction = twin.predictor(twin.projector(twin.encoder(to_unit(online))))
        losses.append(byol_loss(prediction, twin.target_network(to_unit(target))))
    torch.testing.assert_close(loss, losses[0] + losses[1])


def test_gradients_reach_the_online_network_and_the_predictor_alone() -> None:
    method = make()
    method(batch()).loss.backward()
    for name, parameter in method.named_parameters():
        learns = not name.startswith("target_network")
        assert parameter.requires_grad is learns, name
        assert (parameter.grad is not None and bool(parameter.grad.any())) is learns, name


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_target_starts_as_a_copy_and_follows_by_its_momentum(progress: float) -> None:
    method = make(momentum=0.9)
    before = [parameter.clone() for parameter in method.target_network.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, method.online_network.parameters(), strict=True))
    with torch.no_grad():
        for parameter in method.online_network.parameters():
            parameter.add_(1.0)
    method.after_step(progress)
    for old, new in zip(before, method.target_network.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.1 * (1 - progress), atol=1e-6, rtol=1e-5)


def test_identical_embeddings_are_told_as_collapse() -> None:
    method = make()
    with torch.no_grad():
        method.projector[1].weight.zero_()
        method.projector[1].bias.fill_(1.0)
    assert method(batch()).metrics["embedding_std"].item() == pytest.approx(0.0, abs=1e-6)


def test_a_run_in_parts_with_lars_learns_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = trainer_of(*TINY)
    losses = [whole.step_epoch()["loss"] for _ in range(3)]
    assert losses[-1] < losses[0] < 8
    first = trainer_of(*TINY)
    broken = [first.step_epoch()["loss"]]
    save_checkpoint(tmp_path / "state.pt", first.state_dict())
    second = trainer_of(*TINY)
    second.load_state_dict(load_checkpoint(tmp_path / "state.pt"))
    broken += [second.step_epoch()["loss"] for _ in range(2)]
    assert losses == broken
    for name, value in whole.method.state_dict().items():
        assert torch.equal(value, second.method.state_dict()[name]), name
