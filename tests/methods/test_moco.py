"""MoCo-v2: its loss against a slow reference, and what each part of it may touch."""

import math

import lightly.loss
import pytest
import torch
import torch.nn.functional as F

from bgsweep.config import Encoder, MoCoV2Config
from bgsweep.methods.base import Views
from bgsweep.methods.moco import MoCoV2, info_nce
from bgsweep.models import build_encoder, to_unit


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


@pytest.mark.parametrize(("size", "negatives", "dim", "temperature"), [(4, 9, 6, 0.2), (16, 64, 32, 0.07)])
def test_info_nce_equals_lightlys(size: int, negatives: int, dim: int, temperature: float) -> None:
    torch.manual_seed(size)
    query, key, queue = (F.normalize(torch.randn(n, dim), dim=1) for n in (size, size, negatives))
    theirs = lightly.loss.NTXentLoss(temperature=temperature, memory_bank_size=(negatives, dim))
    theirs.memory_bank.bank = queue.clone()
    expected = theirs(query, key)
    assert info_nce(query, key, queue, temperature).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("having", [[], [1], [0, 2, 3]])
def test_negatives_of_its_own_join_the_queue_s(having: list[int]) -> None:
    torch.manual_seed(len(having))
    query, key, queue, swaps = (F.normalize(torch.randn(n, 6), dim=1) for n in (4, 4, 9, len(having)))
    extra = torch.full((4, 1), -torch.inf)
    extra[having, 0] = (query[having] * swaps).sum(dim=1)
    expected = 0.0
    for i in range(4):
        negatives = [*queue, *([swaps[having.index(i)]] if i in having else [])]
        terms = [math.exp(float(query[i] @ other) / 0.2) for other in (key[i], *negatives)]
        expected -= math.log(terms[0] / sum(terms)) / 4
    assert info_nce(query, key, queue, 0.2, extra).item() == pytest.approx(expected, rel=1e-4)


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
    keys, _ = method._keys(images)
    with torch.no_grad():
        expected = F.normalize(method.key_network(to_unit(images)), dim=1)
    torch.testing.assert_close(keys, expected)


def test_split_bn_gives_query_and_key_different_company() -> None:
    """With one group the key's statistics are those of its query's own batch; with several they are others'."""
    method = make(split_bn=4)
    images = batch().images[0]
    with torch.no_grad():
        whole = F.normalize(method.key_network(to_unit(images)), dim=1)
    assert not torch.allclose(method._keys(images)[0], whole, atol=1e-4)


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


def with_swaps(swapped: list[int]) -> Views:
    views = batch()
    pictures = 255 - views.images[1][: len(swapped)]
    return Views(views.images, views.labels, 0, pictures, torch.tensor(swapped, dtype=torch.long))


def logits_of(method: MoCoV2, views: Views, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """The first call of cross-entropy's logits; the loss is left unchanged."""
    found: list[torch.Tensor] = []
    monkeypatch.setattr(F, "cross_entropy", lambda logits, labels: found.append(logits) or logits.logsumexp(1).mean())
    method(views).loss.backward()
    monkeypatch.undo()
    return found[0].detach()


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("swapped", [[], [5], [0, 3, 7]])
def test_swap_is_one_more_logit_of_its_own_query(
    swapped: list[int], symmetric: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, views = make(symmetric=symmetric).eval(), with_swaps(swapped)  # in eval mode BatchNorm mixes nothing
    logits = logits_of(method, views, monkeypatch)
    assert logits.shape == (8, 1 + 32 + 1)
    assert torch.isfinite(logits[:, -1]).nonzero().flatten().tolist() == swapped
    with torch.no_grad():
        queries = F.normalize(method.query_network(to_unit(views.images[0])), dim=1)
        assert views.swaps is not None
        negatives = F.normalize(method.key_network(to_unit(views.swaps)), dim=1) if swapped else queries[:0]
    torch.testing.assert_close(logits[swapped, -1], (queries[swapped] * negatives).sum(dim=1) / 0.2)
    plain = make(symmetric=symmetric).eval()
    torch.testing.assert_close(logits[:, :-1], logits_of(plain, batch(), monkeypatch))


def test_swaps_get_no_gradient_and_never_enter_the_queue() -> None:
    method, plain = make().eval(), make().eval()
    method(with_swaps([1, 6])).loss.backward()
    plain(batch()).loss.backward()
    assert all(parameter.grad is None for parameter in method.key_network.parameters())
    assert all(parameter.grad is not None for parameter in method.query_network.parameters())
    for twin in (method, plain):
        twin.after_step(0.0)
    torch.testing.assert_close(method.queue, plain.queue)
    assert int(method.cursor) == 8


def test_swaps_share_the_keys_groups() -> None:
    method = make(split_bn=4)
    sizes: list[int] = []
    method.key_network.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    method(with_swaps([0, 2, 3, 5, 7]))
    assert sizes == [4, 3, 3, 3]


def test_parts_hold_every_image_once_with_its_swap() -> None:
    views = with_swaps([1, 4, 6])
    parts = list(views.parts(2))
    assert [part.labels.shape[0] for part in parts] == [4, 4]
    for number, part in enumerate(parts):
        assert all(torch.equal(mine, whole[number::2]) for mine, whole in zip(part.images, views.images, strict=True))
    assert [part.swapped.tolist() for part in parts] == [[2, 3], [0]]
    assert torch.equal(parts[0].swaps, views.swaps[1:])
    assert torch.equal(parts[1].swaps, views.swaps[:1])


def test_without_swaps_it_is_plain_moco_bit_for_bit() -> None:
    """Three steps of the published algorithm, written out, on the same weights and batches."""
    method, plain = make(momentum=0.9), make(momentum=0.9)
    query, key, queue = plain.query_network, plain.key_network, plain.queue
    optimizers = [torch.optim.SGD(network.parameters(), 0.1, 0.9) for network in (method.query_network, query)]
    for step in range(3):
        views = batch(seed=step)
        loss = method(views).loss

        q = F.normalize(query(to_unit(views.images[0])), dim=1)
        with torch.no_grad():
            k = F.normalize(key(to_unit(views.images[1])), dim=1)
        logits = torch.cat([(q * k).sum(dim=1, keepdim=True), q @ queue.t()], dim=1) / 0.2
        expected = F.cross_entropy(logits, torch.zeros(8, dtype=torch.long))

        assert torch.equal(loss, expected)
        for optimizer, value in zip(optimizers, (loss, expected), strict=True):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        method.after_step(step / 3)
        for target, online in zip(key.parameters(), query.parameters(), strict=True):
            target.data.lerp_(online.data, 1 - 0.9)
        queue[step * 8 : step * 8 + 8] = k
    for name, value in method.state_dict().items():
        if name != "cursor":
            assert torch.equal(value, plain.state_dict()[name]), name
