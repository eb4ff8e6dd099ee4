"""MoCo-v2: its loss against a slow reference, and what each part of it may touch."""

import math

import pytest
import torch
import torch.nn.functional as F

from bgsweep.config import Encoder, MoCoV2Config
from bgsweep.methods.method import Views
from bgsweep.methods.moco import MoCoV2, info_nce
from bgsweep.models import build_encoder


def make(**changes: object) -> MoCoV2:
    torch.manual_seed(0)
    config = MoCoV2Config.model_validate(
        {"queue_size": 32, "hidden_dim": 16, "embedding_dim": 8, "momentum": 0.9, **changes}
    )
    return MoCoV2(config, build_encoder(Encoder(name="resnet10", width=8, stem="small")))


def batch(size: int = 8, seed: int = 1) -> Views:
    generator = torch.Generator().manual_seed(seed)
    pictures = [torch.randint(0, 256, (size, 16, 16, 3), dtype=torch.uint8, generator=generator) for _ in range(2)]
    return Views(pictures, torch.zeros(size, dtype=torch.long))


@pytest.mark.parametrize(
    ("size", "negatives", "dim", "temperature"), [(3, 5, 4, 0.2), (8, 64, 16, 0.07), (1, 1, 2, 1.0)]
)
def test_info_nce_equals_the_equation(size: int, negatives: int, dim: int, temperature: float) -> None:
    torch.manual_seed(size)
    query, key, queue = (F.normalize(torch.randn(n, dim), dim=1) for n in (size, size, negatives))
    expected = 0.0
    for i in range(size):
        positive = math.exp(float(query[i] @ key[i]) / temperature)
        others = sum(math.exp(float(query[i] @ queue[j]) / temperature) for j in range(negatives))
        expected -= math.log(positive / (positive + others)) / size
    assert info_nce(query, key, queue, temperature).item() == pytest.approx(expected, rel=1e-4)


def test_loss_starts_between_its_bounds() -> None:
    method = make(temperature=0.2)
    loss = method(batch()).loss.item()
    assert math.log(1 + 32 * math.exp(-2 / 0.2)) < loss < math.log(1 + 32 * math.exp(2 / 0.2))


def test_only_the_query_network_gets_gradients() -> None:
    method = make()
    method(batch()).loss.backward()
    for name, parameter in method.named_parameters():
        learns = not name.startswith("key_network")
        assert parameter.requires_grad is learns, name
        assert (parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)) is learns, name
    assert not method.queue.requires_grad


def test_key_network_starts_as_a_copy_and_follows_by_its_momentum() -> None:
    method = make(momentum=0.9)
    before = [p.clone() for p in method.key_network.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, method.query_network.parameters(), strict=True))
    method(batch())
    with torch.no_grad():
        for parameter in method.query_network.parameters():
            parameter.add_(1.0)
    method.after_step(0.0)
    for old, new in zip(before, method.key_network.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.1)


def test_keys_enter_the_queue_after_the_loss_in_order_and_wrap_round() -> None:
    method = make()
    for step in range(5):
        queue = method.queue.clone()
        views = batch(seed=step)
        method(views)
        assert torch.equal(method.queue, queue), "the queue changed before the step was over"
        keys = method._new_keys[0]
        method.after_step(0.0)
        start = step * 8 % 32
        assert torch.equal(method.queue[start : start + 8], keys)
        untouched = torch.ones(32, dtype=torch.bool)
        untouched[start : start + 8] = False
        assert torch.equal(method.queue[untouched], queue[untouched])
    assert int(method.cursor) == 8


def test_keys_come_back_in_the_order_of_their_images() -> None:
    method = make(split_bn=2).eval()  # in eval mode BatchNorm knows no groups, so that only the order can differ
    images = batch().images[1]
    keys = method._keys(images)
    from bgsweep.models import to_unit

    with torch.no_grad():
        expected = F.normalize(method.key_network(to_unit(images)), dim=1)
    torch.testing.assert_close(keys, expected)


def test_split_bn_gives_query_and_key_different_company() -> None:
    """With one group the key's statistics are those of its query's own batch; with several they are others'."""
    method = make(split_bn=4)
    images = batch().images[0]
    from bgsweep.models import to_unit

    with torch.no_grad():
        whole = F.normalize(method.key_network(to_unit(images)), dim=1)
    assert not torch.allclose(method._keys(images), whole, atol=1e-4)


def test_symmetric_loss_is_the_sum_of_both_directions() -> None:
    views = batch()
    both = make(symmetric=True)(views).loss
    there = make()(views).loss
    back = make()(Views(views.images[::-1], views.labels)).loss
    # BatchNorm in train mode does not depend on earlier batches, so the two halves are exactly the two losses.
    torch.testing.assert_close(both, there + back)


def test_identical_embeddings_are_told_as_collapse() -> None:
    method = make()
    with torch.no_grad():
        for parameter in method.projector.parameters():
            parameter.zero_()
        method.projector[-1].bias.fill_(1.0)
    assert method(batch()).metrics["embedding_std"].item() == pytest.approx(0.0, abs=1e-6)
