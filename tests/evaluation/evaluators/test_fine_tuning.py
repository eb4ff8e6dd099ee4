"""Fine-tuning on few labels: the published schedule, every weight trained, and the judged encoder left as it was."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bgsweep.config import Preprocessing, SuiteConfig
from bgsweep.data import Splits
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets.crops import shuffled, training_crops
from bgsweep.evaluation.evaluators.few_labels import labelled
from bgsweep.evaluation.evaluators.fine_tuning import FINE_TUNINGS, fine_tune, fine_tuned
from bgsweep.evaluation.frozen_model import FrozenModel
from bgsweep.evaluation.registry import EVALUATORS
from bgsweep.seeding import Draw, rng_key


def small_network() -> nn.Module:
    """Not yet trained: convolutions with BatchNorm, frozen and in eval mode as subjects are."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(),
    )  # fmt: skip
    return network.eval().requires_grad_(False)


def examination(splits: Splits, threads: int = 2) -> EvalContext:
    network = small_network()

    @torch.inference_mode()
    def encode(images: Tensor) -> Tensor:
        features: Tensor = network(images.permute(0, 3, 1, 2).float() / 255)
        return features

    file = SuiteConfig(size=32, preprocessing=Preprocessing(resize=36, crop=32), threads=threads)
    return EvalContext(FrozenModel(encode, network, torch.device("cpu")), file, splits)


def test_the_published_settings() -> None:
    one, ten = FINE_TUNINGS[0.01], FINE_TUNINGS[0.1]
    assert (one.lr, one.head_lr, ten.lr, ten.head_lr) == (0.02, 5.0, 0.01, 0.2)
    for recipe in (one, ten):
        assert (recipe.epochs, recipe.batch_size, recipe.weight_decay) == (20, 256, 0.0)
        factors = [recipe.factor(epoch) for epoch in range(20)]
        assert factors == pytest.approx([1.0] * 12 + [0.2] * 4 + [0.04] * 4)
    assert {"finetune_1", "finetune_10"} < EVALUATORS.keys()


def test_it_equals_torchs_optimizer_and_scheduler_step_by_step(splits: Splits) -> None:
    recipe = replace(FINE_TUNINGS[0.1], epochs=5, batch_size=40)
    context = examination(splits)
    part, _ = labelled(context, 0.1)
    found = fine_tune(context, part, recipe)
    torch.manual_seed(0)
    network = nn.Sequential(small_network().requires_grad_(True), nn.Linear(128, 10)).train()
    torch.manual_seed(rng_key(0, 0, "fine-tuning", Draw.PROBE_WEIGHTS))
    network[1].reset_parameters()  # type: ignore[operator]
    groups = [{"params": network[0].parameters(), "lr": 0.01}, {"params": network[1].parameters(), "lr": 0.2}]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 4], 0.2)
    for epoch in range(5):
        batches = shuffled(len(part), 0, epoch, 40)
        assert [len(batch) for batch in batches] == [40, 40, 20]
        for images, labels in training_crops(part, batches, 32, 0, epoch, 1):
            optimizer.zero_grad()
            pictures = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
            F.cross_entropy(network(pictures), torch.from_numpy(labels)).backward()
            optimizer.step()
        scheduler.step()
    for (name, ours), theirs in zip(found.state_dict().items(), network.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4, msg=name)


def test_every_weight_learns_and_the_encoder_itself_stays_as_it_is(splits: Splits) -> None:
    context = examination(splits)
    before = copy.deepcopy(context.model.network.state_dict())
    part, _ = labelled(context, 0.1)
    trained = fine_tune(context, part, replace(FINE_TUNINGS[0.1], epochs=2, batch_size=32))
    after = context.model.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(one.requires_grad for one in context.model.network.parameters())
    for name, value in trained.state_dict().items():
        if name.startswith("0."):
            assert not torch.equal(value, before[name.removeprefix("0.")]), f"{name} has not been trained"


def test_it_learns_from_ten_percent(splits: Splits) -> None:
    recipe = replace(FINE_TUNINGS[0.1], epochs=60, batch_size=10, lr=0.05, head_lr=0.1)
    prepared = fine_tuned(examination(splits), "finetune_10", 0.1, recipe)
    first, fifth = prepared.measure()
    assert (first.name, fifth.name) == ("finetune_10_top1", "finetune_10_top5")
    assert 0.17 < first.value < fifth.value
    protocol = prepared.protocol()
    assert protocol["source"] == "SwAV's eval_semisup.py for 10 %" and protocol["head_lr"] == 0.1
    assert "100 of 960 images, drawn by class, seed 0" in protocol["train"]


def test_the_threads_do_not_matter(splits: Splits) -> None:
    recipe = replace(FINE_TUNINGS[0.1], epochs=1, batch_size=32)
    exams = [examination(splits, threads) for threads in (1, 4)]
    one, four = (fine_tune(context, labelled(context, 0.1)[0], recipe).state_dict() for context in exams)
    assert all(torch.equal(one[name], four[name]) for name in one)
