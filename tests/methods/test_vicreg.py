"""VICReg: its terms against slow references and lightly's, its expander, and collapse."""

import math

import lightly.loss
import pytest
import torch
from torch import Tensor, nn

from bgsweep.config import Encoder, VICRegConfig, resolve
from bgsweep.methods.base import Views
from bgsweep.methods.vicreg import VICReg, covariance_loss, variance_loss
from bgsweep.models import build_encoder, to_unit
from bgsweep.training.optimizer import build_optimizer


def make(**changes: object) -> VICReg:
    torch.manual_seed(0)
    config = VICRegConfig.model_validate({"name": "vicreg", "hidden_dim": 16, "embedding_dim": 8, **changes})
    return VICReg(config, build_encoder(Encoder(name="resnet10", width=8, stem="small")))


def batch(size: int = 8) -> Views:
    generator = torch.Generator().manual_seed(1)
    images = [torch.randint(0, 256, (size, 16, 16, 3), dtype=torch.uint8, generator=generator) for _ in range(2)]
    return Views(images, torch.zeros(size, dtype=torch.long))


def embeddings(size: int, dim: int) -> Tensor:
    return torch.randn(size, dim, generator=torch.Generator().manual_seed(size)) * torch.linspace(0.2, 2, dim)


@pytest.mark.parametrize(("size", "dim"), [(2, 3), (7, 4), (16, 9)])
def test_terms_equal_their_equations(size: int, dim: int) -> None:
    columns = embeddings(size, dim).double().t().tolist()
    means = [sum(column) / size for column in columns]
    covariance = [
        [
            sum((a - means[i]) * (b - means[j]) for a, b in zip(columns[i], columns[j], strict=True)) / (size - 1)
            for j in range(dim)
        ]
        for i in range(dim)
    ]
    variance = sum(max(0.0, 1 - math.sqrt(covariance[i][i] + 1e-4)) for i in range(dim)) / dim
    off = sum(covariance[i][j] ** 2 for i in range(dim) for j in range(dim) if i != j) / dim
    assert variance_loss(embeddings(size, dim)).item() == pytest.approx(variance, rel=1e-4)
    assert covariance_loss(embeddings(size, dim)).item() == pytest.approx(off, rel=1e-4)


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (3.0, 0.0, 7.0)])
def test_loss_equals_lightlys_and_each_view_has_its_own_batch_statistics(weights: tuple[float, float, float]) -> None:
    method, twin, views = make(), make(), batch()
    names = ("invariance", "variance", "covariance")
    method = make(**dict(zip(names, weights, strict=True)))
    first, second = (twin.expander(twin.encoder(to_unit(images))) for images in views.images)
    theirs = lightly.loss.VICRegLoss(lambda_param=weights[0], mu_param=weights[1], nu_param=weights[2])
    torch.testing.assert_close(method(views).loss, theirs(first, second))


def test_expander_is_that_of_the_published_code() -> None:
    layers = VICReg(
        VICRegConfig(name="vicreg"), build_encoder(Encoder(name="resnet10", width=8, stem="small"))
    ).expander
    assert [type(layer) for layer in layers] == [*[nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2, nn.Linear]
    assert [layer.out_features for layer in layers if isinstance(layer, nn.Linear)] == [8192] * 3
    assert layers[-1].bias is None


def test_gradients_reach_all_parameters() -> None:
    method = make()
    method(batch()).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in method.parameters())


def test_collapse_costs_the_whole_variance_term_and_is_told() -> None:
    method = make()
    with torch.no_grad():
        method.expander[-1].weight.zero_()
    step = method(batch())
    assert step.loss.item() == pytest.approx(25 * (1 - 0.01))
    assert step.metrics["embedding_std"].item() == pytest.approx(0.0, abs=1e-6)


def test_default_optimizer_does_not_diverge() -> None:
    """With SGD at 0.03, the default of other methods, the fifth loss is thirty times the first."""
    config = resolve({}, ["method={name: vicreg, hidden_dim: 2048, embedding_dim: 2048}"]).experiment
    torch.manual_seed(0)
    method = VICReg(config.method, build_encoder(Encoder(name="resnet10", stem="small")))
    optimizer, losses = build_optimizer(config.optimizer, method), []
    images = torch.randint(0, 256, (2, 4, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    for _ in range(5):
        optimizer.zero_grad()
        loss = method(Views(list(images), torch.zeros(4, dtype=torch.long))).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
