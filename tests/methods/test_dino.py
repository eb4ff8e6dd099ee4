"""DINO: its loss against lightly's, its teacher, centre and schedules, and what each part of it may touch."""

import math
from pathlib import Path

import lightly.loss
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from bgsweep.config import DINOConfig, Encoder
from bgsweep.methods.base import Views, swapped_loss
from bgsweep.methods.dino import DINO, DINOHead, teacher_temperature
from bgsweep.models import build_encoder
from bgsweep.training import load_checkpoint, save_checkpoint
from bgsweep.training.checkpoint import load_trained
from tests.inputs import trainer_of

SMALL = {"prototypes": 20, "hidden_dim": 16, "embedding_dim": 8}
TINY = [
    "data={images: sample, resize: 24, cache: true, loader_workers: 0}",
    "views={size: 16, small_crops: 1, small_size: 8, blur: [1.0, 0.1, 0.5], solarize: [0.0, 0.2, 0.0]}",
    "method={name: dino, prototypes: 12, hidden_dim: 16, embedding_dim: 8, teacher_warmup_epochs: 2}",
    "encoder={name: resnet10, width: 4, stem: small}",
    "optimizer={name: adamw, lr: 0.001, weight_decay: {from: 0.04, to: 0.4, course: cosine}, clip_norm: 0.5}",
    "training={epochs: 3, batch_size: 320, precision: fp32, accumulate: 2}",
    "workers={device: cpu}",
]


def make(encoder: Encoder | None = None, **changes: object) -> DINO:
    torch.manual_seed(0)
    config = DINOConfig.model_validate({"name": "dino", **SMALL, **changes})
    return DINO(config, build_encoder(encoder or Encoder(name="resnet10", width=8, stem="small"), [16, 8]))


def batch(seed: int = 1, size: int = 8, small: int = 2, epoch: int = 0, scale: int = 1) -> Views:
    generator = torch.Generator().manual_seed(seed)
    sides = [16 * scale] * 2 + [8 * scale] * small
    images = [torch.randint(0, 256, (size, side, side, 3), dtype=torch.uint8, generator=generator) for side in sides]
    return Views(images, torch.zeros(size, dtype=torch.long), epoch)


@pytest.mark.parametrize("epoch", [0, 2, 9])
def test_loss_and_centre_equal_lightlys(epoch: int) -> None:
    method = make(teacher_warmup_epochs=4, center_momentum=0.8)
    theirs = lightly.loss.DINOLoss(20, 0.04, 0.07, 4, 0.1, 0.8)
    heads: list[Tensor] = []
    for head in (method.head, method.student_head):
        head.register_forward_hook(lambda _, __, output: heads.append(output[1].detach()))
    for step in range(3):
        heads.clear()
        found = method(batch(seed=step, epoch=epoch)).loss
        method.after_step(0.0)
        expected = theirs(list(heads[0].chunk(2)), list(heads[1].chunk(4)), epoch=epoch)
        torch.testing.assert_close(found, expected)
        assert method.center.any()


def test_loss_equals_the_equation() -> None:
    generator = torch.Generator().manual_seed(3)
    student, teacher = torch.randn(3, 2, 5, generator=generator), torch.randn(2, 2, 5, generator=generator)
    targets = (teacher / 0.05).softmax(dim=2)
    expected = 0.0
    for large in range(2):
        for crop in {0, 1, 2} - {large}:
            for image in range(2):
                exps = [math.exp(float(score) / 0.1) for score in student[crop, image]]
                for target, value in zip(targets[large, image], exps, strict=True):
                    expected -= float(target) * math.log(value / sum(exps)) / (4 * 2)
    assert swapped_loss(student, targets, 0.1).item() == pytest.approx(expected, rel=1e-4)


def test_the_teacher_s_temperature_rises_in_a_line() -> None:
    config = DINOConfig(name="dino", teacher_warmup_epochs=4)
    found = [teacher_temperature(config, epoch) for epoch in range(6)]
    assert found == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.07, 0.07])
    assert teacher_temperature(DINOConfig(name="dino", teacher_warmup_epochs=0), 0) == 0.07


@pytest.mark.parametrize("norm_last_layer", [True, False])
def test_head_is_that_of_the_published_code(norm_last_layer: bool) -> None:
    head = DINOHead(64, DINOConfig(name="dino", prototypes=30, norm_last_layer=norm_last_layer))
    assert [type(layer) for layer in head.mlp] == [nn.Linear, nn.GELU, nn.Linear, nn.GELU, nn.Linear]
    assert [layer.out_features for layer in head.mlp if isinstance(layer, nn.Linear)] == [2048, 2048, 256]
    assert head.mlp[0].weight.std().item() == pytest.approx(0.02, rel=0.05) and not head.mlp[0].bias.any()
    published = nn.utils.parametrizations.weight_norm(nn.Linear(256, 30, bias=False))
    published.parametrizations.weight.original0.data.fill_(1)
    published.parametrizations.weight.original1.data.copy_(head.prototypes.weight)
    features = torch.randn(5, 64)
    embeddings, scores = head(features)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(scores, published(F.normalize(head.mlp(features), dim=1)))
    scores.square().sum().backward()
    assert (head.lengths.grad is None) is norm_last_layer


def test_the_teacher_sees_large_crops_alone_and_the_student_all() -> None:
    method = make()
    seen: dict[str, list[tuple[int, ...]]] = {"student": [], "teacher": []}
    for name, encoder in (("student", method.student_encoder), ("teacher", method.encoder)):
        encoder.register_forward_hook(lambda _, inputs, __, name=name: seen[name].append(tuple(inputs[0].shape)))
    method(batch(small=3))
    assert seen == {"student": [(16, 3, 16, 16), (24, 3, 8, 8)], "teacher": [(16, 3, 16, 16)]}


def test_gradients_reach_the_student_alone() -> None:
    method = make(norm_last_layer=False)
    method(batch(epoch=1)).loss.backward()
    for name, parameter in method.named_parameters():
        learns = name.startswith("student")
        assert parameter.requires_grad is learns, name
        assert (parameter.grad is not None and bool(parameter.grad.any())) is learns, name


def test_the_last_layer_holds_still_in_the_first_epochs() -> None:
    method = make(freeze_last_layer=2)
    optimizer = torch.optim.AdamW([each for each in method.parameters() if each.requires_grad], 0.1, weight_decay=0.5)
    moved = []
    for epoch in range(4):
        optimizer.zero_grad()
        before = [
            each.detach().clone() for each in (method.student_head.prototypes.weight, method.student_head.lengths)
        ]
        method(batch(epoch=epoch)).loss.backward()
        method.after_backward(0)
        optimizer.step()
        after = [method.student_head.prototypes.weight, method.student_head.lengths]
        moved.append([not torch.equal(a, b) for a, b in zip(before, after, strict=True)])
    assert moved == [[False, False], [False, False], [True, True], [True, True]]


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_teacher_starts_as_a_copy_and_follows_by_its_momentum(progress: float) -> None:
    method = make(momentum=0.9)
    teacher = [*method.encoder.parameters(), *method.head.parameters()]
    student = [*method.student_encoder.parameters(), *method.student_head.parameters()]
    before = [parameter.clone() for parameter in teacher]
    assert all(torch.equal(a, b) for a, b in zip(before, student, strict=True))
    method(batch())
    with torch.no_grad():
        for parameter in student:
            parameter.add_(1.0)
    method.after_step(progress)
    for old, new in zip(before, teacher, strict=True):
        torch.testing.assert_close(new, old + 0.1 * (1 - progress), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["vit_s_16", "timm:vit_tiny_patch16_224"])
def test_a_transformer_s_teacher_drops_nothing_and_small_crops_fit(name: str) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    encoder = build_encoder(Encoder(name=name, drop_path=0.9), [32, 16])
    method = DINO(DINOConfig.model_validate({"name": "dino", **SMALL}), encoder).train()
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(method.encoder(images), method.encoder(images))
        assert not torch.equal(method.student_encoder(images), method.student_encoder(images))
    assert method(batch(size=2, scale=2)).loss.isfinite()


def test_stochastic_depth_rises_to_its_rate() -> None:
    backbone = build_encoder(Encoder(name="vit_s_16", drop_path=0.22), [32]).backbone
    rates = [block.dropout.p for block in backbone.encoder.layers]
    assert rates == pytest.approx([0.02 * depth for depth in range(12)])
    assert all(
        block.dropout is block.mlp[-1] and isinstance(block.dropout, StochasticDepth)
        for block in backbone.encoder.layers
    )


def test_collapse_onto_one_prototype_or_all_of_them_is_told() -> None:
    method = make()
    with torch.no_grad():
        method.center.fill_(0.0)[0, 3] = -100
    metrics = method(batch()).metrics
    found = [metrics[name].item() for name in ("prototype_entropy", "target_entropy")]
    assert found == pytest.approx([0.0, 0.0], abs=1e-6)
    with torch.no_grad():
        method.center.zero_()
        method.head.lengths.zero_()
        method.student_head.mlp[-1].weight.zero_()
        method.student_head.mlp[-1].bias.fill_(1.0)
    metrics = method(batch()).metrics
    found = [metrics[name].item() for name in ("prototype_entropy", "target_entropy", "embedding_std")]
    assert found == pytest.approx([1.0, 1.0, 0.0], abs=1e-5)


def test_a_run_in_parts_learns_goes_on_bit_for_bit_and_gives_its_teacher(tmp_path: Path) -> None:
    whole = trainer_of(*TINY)
    losses = [whole.step_epoch()["loss"] for _ in range(3)]
    first = trainer_of(*TINY)
    broken = [first.step_epoch()["loss"]]
    save_checkpoint(tmp_path / "state.pt", first.state_dict())
    second = trainer_of(*TINY)
    second.load_state_dict(load_checkpoint(tmp_path / "state.pt"))
    broken += [second.step_epoch()["loss"] for _ in range(2)]
    assert losses == broken
    for name, value in whole.method.state_dict().items():
        assert torch.equal(value, second.method.state_dict()[name]), name
    kept = load_trained(str(tmp_path / "state.pt")).encoder.state_dict()
    method = load_checkpoint(tmp_path / "state.pt")["method"]
    assert all(torch.equal(value, method[f"encoder.{name}"]) for name, value in kept.items())
    assert any(not torch.equal(value, method[f"student_encoder.{name}"]) for name, value in kept.items())
