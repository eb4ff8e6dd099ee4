"""SimCLR: its loss against a slow reference and lightly's, its head, and what BG_Swaps' negatives change."""

import math

import lightly.loss
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bgsweep.config import Encoder, SimCLRConfig
from bgsweep.methods.base import Views, own_similarities
from bgsweep.methods.simclr import SimCLR, nt_xent
from bgsweep.models import build_encoder, to_unit


def make(**changes: object) -> SimCLR:
    torch.manual_seed(0)
    config = SimCLRConfig.model_validate({"name": "simclr", "hidden_dim": 16, "embedding_dim": 8, **changes})
    return SimCLR(config, build_encoder(Encoder(name="resnet10", width=8, stem="small")))


def batch(size: int = 8, swapped: list[int] | None = None) -> Views:
    generator = torch.Generator().manual_seed(1)
    images = [torch.randint(0, 256, (size, 16, 16, 3), dtype=torch.uint8, generator=generator) for _ in range(2)]
    labels = torch.zeros(size, dtype=torch.long)
    if swapped is None:
        return Views(images, labels)
    return Views(images, labels, 0, 255 - images[1][: len(swapped)], torch.tensor(swapped, dtype=torch.long))


def pairs(size: int, dim: int) -> Tensor:
    return F.normalize(torch.randn(2, size, dim, generator=torch.Generator().manual_seed(size)), dim=2)


def reference(views: Tensor, temperature: float, own: dict[int, Tensor]) -> float:
    """The equation, one view at a time; ``own`` has the negatives of some first views."""
    size = views.shape[1]
    rows = [*views.detach().flatten(0, 1)]
    loss = 0.0
    for i, row in enumerate(rows):
        others = [other for k, other in enumerate(rows) if k != i] + ([own[i]] if i in own else [])
        terms = [math.exp(float(row @ other) / temperature) for other in others]
        positive = math.exp(float(row @ rows[(i + size) % (2 * size)]) / temperature)
        loss -= math.log(positive / sum(terms)) / len(rows)
    return loss


@pytest.mark.parametrize(("size", "dim", "temperature"), [(2, 3, 1.0), (5, 8, 0.2), (16, 32, 0.1)])
def test_loss_equals_the_equation_and_lightlys(size: int, dim: int, temperature: float) -> None:
    views = pairs(size, dim)
    found = nt_xent(views, temperature)
    assert found.item() == pytest.approx(reference(views, temperature, {}), rel=1e-4)
    torch.testing.assert_close(found, lightly.loss.NTXentLoss(temperature=temperature)(*views))


@pytest.mark.parametrize("having", [[], [1], [0, 2, 3]])
def test_negatives_of_its_own_join_those_of_a_first_view_alone(having: list[int]) -> None:
    views = pairs(4, 6)
    swaps = F.normalize(torch.randn(len(having), 6, generator=torch.Generator().manual_seed(9)), dim=1)
    extra = own_similarities(views.flatten(0, 1), swaps, torch.tensor(having, dtype=torch.long))
    expected = reference(views, 0.2, dict(zip(having, swaps, strict=True)))
    assert nt_xent(views, 0.2, extra).item() == pytest.approx(expected, rel=1e-4)


def test_loss_starts_within_its_bounds() -> None:
    loss = make(temperature=0.5)(batch()).loss.item()
    assert math.log(1 + 14 * math.exp(-2 / 0.5)) < loss < math.log(1 + 14 * math.exp(2 / 0.5))


def test_head_is_that_of_the_published_code() -> None:
    method = SimCLR(SimCLRConfig(name="simclr"), build_encoder(Encoder(name="resnet10", width=8, stem="small")))
    first, norm, rectifier, last, last_norm = method.projector
    assert (first.in_features, first.out_features) == (64, 2048)
    assert isinstance(norm, nn.BatchNorm1d) and isinstance(rectifier, nn.ReLU)
    assert (last.in_features, last.out_features, last.bias) == (2048, 128, None)
    assert last_norm.weight.requires_grad and not last_norm.bias.requires_grad and not last_norm.bias.any()


@pytest.mark.parametrize("swapped", [None, [], [5, 2]])
def test_views_and_negatives_go_through_the_encoder_together(swapped: list[int] | None) -> None:
    method, twin, views = make(), make(), batch(swapped=swapped)
    seen: list[int] = []
    method.encoder.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    loss = method(views).loss
    assert seen == [16 + len(swapped or [])]
    everything = torch.cat([*views.images, *([] if views.swaps is None else [views.swaps])])
    embeddings = F.normalize(twin.projector(twin.encoder(to_unit(everything))), dim=1)
    negatives = dict(zip(swapped or [], embeddings[16:].detach(), strict=True))
    assert loss.item() == pytest.approx(reference(embeddings[:16].view(2, 8, -1), 0.1, negatives), rel=1e-4)


def test_gradients_reach_all_parameters_and_come_from_negatives_too() -> None:
    method = make().eval()  # in eval mode BatchNorm carries nothing from one image to another
    views = batch(swapped=[3])
    assert views.swaps is not None
    found: list[Tensor] = []

    def keep_gradients(_: nn.Module, __: object, features: Tensor) -> None:
        features.register_hook(found.append)

    method.encoder.register_forward_hook(keep_gradients)
    method(views).loss.backward()
    assert len(found[0]) == 17 and bool(found[0].abs().sum(dim=1).gt(0).all())
    for name, parameter in make().train().named_parameters():
        assert parameter.requires_grad is (name != "projector.4.bias"), name
    assert all(p.grad is not None and p.grad.any() for p in method.parameters() if p.requires_grad)


def test_identical_embeddings_are_told_as_collapse() -> None:
    method = make()
    with torch.no_grad():
        method.projector[-1].weight.zero_()
        method.projector[-1].bias.fill_(1.0)
    step = method(batch())
    assert step.metrics["embedding_std"].item() == pytest.approx(0.0, abs=1e-6)
    assert step.loss.item() == pytest.approx(math.log(15))
