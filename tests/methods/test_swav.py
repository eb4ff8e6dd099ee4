"""SwAV: its loss against slow references and lightly's, its prototypes, what may assign, and the queue's life."""

import math
from pathlib import Path

import lightly.loss
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bgsweep.config import Encoder, SwAVConfig
from bgsweep.errors import UserError
from bgsweep.methods.base import Views, swapped_loss
from bgsweep.methods.sinkhorn import sinkhorn
from bgsweep.methods.swav import SwAV
from bgsweep.models import build_encoder
from bgsweep.training import load_checkpoint, save_checkpoint
from tests.inputs import trainer_of

TINY = [
    "data={images: sample, resize: 24, cache: true, loader_workers: 0}",
    "views={size: 16, small_crops: 1, small_size: 8}",
    "method={name: swav, prototypes: 12, hidden_dim: 16, embedding_dim: 8, queue_size: 640, queue_start: 0,"
    " freeze_prototypes: 2}",
    "encoder={name: resnet10, width: 4, stem: small}",
    "training={epochs: 3, batch_size: 320, precision: fp32}",
    "workers={device: cpu}",
]


def make(**changes: object) -> SwAV:
    torch.manual_seed(0)
    config = SwAVConfig.model_validate(
        {"name": "swav", "prototypes": 20, "hidden_dim": 16, "embedding_dim": 8, "freeze_prototypes": 0, **changes}
    )
    return SwAV(config, build_encoder(Encoder(name="resnet10", width=8, stem="small"), [16, 8]))


def batch(seed: int = 1, size: int = 8, small: int = 2, epoch: int = 0) -> Views:
    generator = torch.Generator().manual_seed(seed)
    sides = [16, 16] + [8] * small
    pictures = [torch.randint(0, 256, (size, side, side, 3), dtype=torch.uint8, generator=generator) for side in sides]
    return Views(pictures, torch.zeros(size, dtype=torch.long), epoch)


def random_scores(crops: int, samples: int, prototypes: int) -> Tensor:
    generator = torch.Generator().manual_seed(crops * samples)
    units = [F.normalize(torch.randn(n, 6, generator=generator), dim=1) for n in (crops * samples, prototypes)]
    return (units[0] @ units[1].t()).view(crops, samples, prototypes)


@pytest.mark.parametrize(
    ("crops", "samples", "prototypes", "temperature"), [(2, 3, 5, 0.1), (5, 4, 7, 0.3), (8, 1, 2, 1.0)]
)
def test_loss_equals_the_equation(crops: int, samples: int, prototypes: int, temperature: float) -> None:
    scores = random_scores(crops, samples, prototypes)
    codes = torch.stack([sinkhorn(crop, 0.05, 3) for crop in scores[:2]])
    expected = 0.0
    for assigned in range(2):
        for crop in set(range(crops)) - {assigned}:
            for sample in range(samples):
                row = [math.exp(float(score) / temperature) for score in scores[crop, sample]]
                for code, value in zip(codes[assigned, sample], row, strict=True):
                    expected -= float(code) * math.log(value / sum(row)) / (2 * (crops - 1) * samples)
    assert swapped_loss(scores, codes, temperature).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("queued", [0, 9])
def test_loss_equals_lightlys(queued: int) -> None:
    theirs = lightly.loss.SwaVLoss()
    scores, earlier = random_scores(6, 8, 15), random_scores(2, 9, 15)[:, :queued]
    codes = torch.stack([sinkhorn(torch.cat(pair), 0.05, 3)[queued:] for pair in zip(earlier, scores[:2], strict=True)])
    # Theirs takes the queue behind the batch, which changes nothing: Sinkhorn does not look at the order.
    expected = theirs(list(scores[:2]), list(scores[2:]), list(earlier) if queued else None)
    torch.testing.assert_close(swapped_loss(scores, codes, 0.1), expected.squeeze())


def test_loss_is_ln_k_where_nothing_is_told_apart() -> None:
    loss = swapped_loss(torch.full((4, 6, 30), 0.3), torch.full((2, 6, 30), 1 / 30), 0.1)
    assert loss.item() == pytest.approx(math.log(30))


def test_loss_starts_near_ln_k() -> None:
    # Scores with random prototypes vary by 1 / sqrt(8) around 0, which hardly tells them apart at temperature 1.
    step = make(prototypes=300, temperature=1.0)(batch(size=64))
    assert step.loss.item() == pytest.approx(math.log(300), rel=0.05)
    assert step.metrics["prototype_entropy"].item() == pytest.approx(1.0, abs=0.05)


def test_gradients_reach_all_parameters_but_no_codes() -> None:
    method = make(queue_size=8, queue_start=0)
    method(batch()).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in method.parameters())
    assert not method._new_embeddings[0].requires_grad


def test_prototypes_are_unit_vectors_without_bias_at_every_forward() -> None:
    method = make()
    assert method.prototypes.bias is None
    with torch.no_grad():
        method.prototypes.weight.mul_(torch.rand(20, 1) * 9 + 0.1)
    method(batch())
    torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(20))


def test_prototypes_hold_still_for_exactly_the_configured_steps() -> None:
    method = make(freeze_prototypes=3)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
    first = F.normalize(method.prototypes.weight.detach(), dim=1)
    moved = []
    for step in range(5):
        optimizer.zero_grad()
        loss = method(batch(seed=step)).loss
        before = method.prototypes.weight.detach().clone()
        loss.backward()
        method.after_backward(step)
        optimizer.step()
        moved.append(not torch.equal(method.prototypes.weight, before))
        if not moved[-1]:
            torch.testing.assert_close(before, first, rtol=0, atol=1e-6)  # normalised anew, and no more than that
    assert moved == [False, False, False, True, True]


def codes_of(method: SwAV, views: Views) -> Tensor:
    found = []
    assign = method._assign
    method._assign = lambda scores: found.append(assign(scores)) or found[-1]
    method(views)
    del method._assign
    return found[0]


def test_only_large_crops_assign() -> None:
    views = batch()
    other = Views([*views.images[:2], *(255 - images for images in views.images[2:])], views.labels)
    # In eval mode BatchNorm carries nothing from one crop to another.
    codes = codes_of(make().eval(), views)
    assert codes.shape == (2, 8, 20)
    assert torch.equal(codes, codes_of(make().eval(), other))
    assert make().eval()(views).loss != make().eval()(other).loss


def test_crops_of_one_size_go_through_the_encoder_together() -> None:
    method = make()
    seen: list[tuple[int, ...]] = []
    method.encoder.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    heads: list[int] = []
    method.projector.register_forward_hook(lambda _, inputs, __: heads.append(len(inputs[0])))
    method(batch(small=3))
    assert seen == [(16, 3, 16, 16), (24, 3, 8, 8)]
    assert heads == [40]


def embeddings_of(method: SwAV, views: Views) -> Tensor:
    """The rows (B, 2, D) that a forward pass will put into the queue."""
    method(views)
    return method._new_embeddings[-1]


def test_queue_fills_from_its_epoch_in_order_and_wraps_round() -> None:
    method = make(queue_size=24, queue_start=2)
    for epoch in range(2):
        method(batch(epoch=epoch))
        method.after_step(0.0)
    assert int(method.enqueued) == 0
    assert not method.queue.any()
    for step in range(5):
        before = method.queue.clone()
        batch_embeddings = embeddings_of(method, batch(seed=step, epoch=2))
        assert torch.equal(method.queue, before), "the queue changed before the step was over"
        method.after_step(0.0)
        start = step * 8 % 24
        before[start : start + 8] = batch_embeddings
        assert torch.equal(method.queue, before)
    assert int(method.enqueued) == 40


def test_queue_is_used_once_its_last_row_is_filled_with_the_present_prototypes() -> None:
    method = make(queue_size=16, queue_start=0).eval()
    alone = make(queue_size=0).eval()
    views = batch(seed=9)
    for filled in range(3):
        with torch.no_grad():
            for twin in (method, alone):
                twin.prototypes.weight.copy_(torch.randn(20, 8, generator=torch.Generator().manual_seed(filled)))
        used = not torch.equal(codes_of(method, views), codes_of(alone, views))
        assert used is (filled == 2)
        method._new_embeddings.clear()
        method(batch(seed=filled))
        method.after_step(0.0)
    large = embeddings_of(method, views).transpose(0, 1)
    scores = torch.cat([method.queue.transpose(0, 1), large], dim=1) @ method.prototypes.weight.t()
    expected = torch.stack([sinkhorn(crop, 0.05, 3)[-8:] for crop in scores])
    torch.testing.assert_close(codes_of(method, views), expected)


def test_parts_of_an_accumulated_batch_all_enter_the_queue() -> None:
    method = make(queue_size=16, queue_start=0)
    parts = [embeddings_of(method, batch(seed=seed)) for seed in range(2)]
    method.after_step(0.0)
    assert torch.equal(method.queue, torch.cat(parts))


def test_identical_embeddings_are_told_as_collapse() -> None:
    method = make()
    with torch.no_grad():
        method.projector[-1].weight.zero_()
        method.projector[-1].bias.copy_(torch.arange(8.0))
    metrics = method(batch()).metrics
    assert metrics["embedding_std"].item() == pytest.approx(0.0, abs=1e-6)


def test_a_run_with_a_queue_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = trainer_of(*TINY)
    losses = [whole.step_epoch()["loss"] for _ in range(3)]
    first = trainer_of(*TINY)
    broken = [first.step_epoch()["loss"]]
    save_checkpoint(tmp_path / "state.pt", first.state_dict())
    second = trainer_of(*TINY)
    second.load_state_dict(load_checkpoint(tmp_path / "state.pt"))
    assert int(second.method.enqueued) == 960
    broken += [second.step_epoch()["loss"] for _ in range(2)]
    assert losses == broken
    for name, value in whole.method.state_dict().items():
        assert torch.equal(value, second.method.state_dict()[name]), name


def test_a_queue_holds_whole_batches() -> None:
    with pytest.raises(UserError, match=r"queue_size 650 is not a multiple of training.batch_size 320"):
        trainer_of(*TINY, "method.queue_size=650")
