"""Attacks: inside their ball, as strong as plain gradient steps can be, and the stronger the larger ball and budget."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bgsweep.config import Attacks, Evaluate, Linear, Preprocessing, SuiteConfig
from bgsweep.data import Splits
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets.listing import read_rgb, square
from bgsweep.evaluation.evaluators.adversarial import STEP, fgsm, pgd
from bgsweep.evaluation.evaluators.autoattack import Classifier, attack
from bgsweep.evaluation.frozen_model import to_unit
from bgsweep.evaluation.registry import run_evaluators
from tests.evaluation.subjects import subject


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A small convolutional network with BatchNorm, fitted to blobs so that its gradients mean something."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 4),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(100):
        inputs, labels = blobs(64, step)
        optimizer.zero_grad()
        F.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
    return net.eval().requires_grad_(False)


def blobs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise with one quarter a little brighter, which is the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=generator)
    inputs = torch.rand(count, 3, 16, 16, generator=generator) * 0.8
    for picture, label in zip(inputs, labels.tolist(), strict=True):
        picture[:, 8 * (label // 2) :, 8 * (label % 2) :][:, :8, :8] += 0.12
    return inputs.clamp(0, 1), labels


def loss(network: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    return F.cross_entropy(network(inputs), labels).item()


def test_pgd_equals_the_plain_loop_for_images_it_does_not_defeat(network: nn.Module) -> None:
    inputs, labels = blobs(40, 1000)
    noise = torch.rand(inputs.shape, generator=torch.Generator().manual_seed(0))
    eps, steps = 2 / 255, 5
    found = pgd(network, inputs, labels, eps, steps, noise)
    for index in range(len(labels)):
        picture, label = inputs[index : index + 1], labels[index : index + 1]
        moved = (picture + eps * (2 * noise[index : index + 1] - 1)).clamp(0, 1)
        beaten = False
        for _ in range(steps):
            beaten |= bool(network(moved).argmax() != label)
            moved = moved.clone().requires_grad_()
            F.cross_entropy(network(moved), label).backward()
            assert moved.grad is not None
            stepped = moved.detach() + STEP * eps / steps * moved.grad.sign()
            moved = torch.min(torch.max(stepped, picture - eps), picture + eps).clamp(0, 1)
        beaten |= bool(network(moved).argmax() != label)
        assert bool(found.defeated[index]) == beaten
        if not beaten:
            torch.testing.assert_close(found.inputs[index], moved[0], atol=1e-6, rtol=0)


def test_attacked_images_stay_in_the_ball_and_in_range(network: nn.Module) -> None:
    inputs, labels = blobs(64, 1001)
    noise = torch.rand(inputs.shape)
    for eps in (0.5 / 255, 8 / 255):
        for found in (fgsm(network, inputs, labels, eps), pgd(network, inputs, labels, eps, 7, noise)):
            assert (found.inputs - inputs).abs().max() <= eps + 1e-6
            assert found.inputs.min() >= 0 and found.inputs.max() <= 1
            assert torch.equal(found.defeated, network(found.inputs).argmax(dim=1) != labels)


def test_gradients_are_not_masked(network: nn.Module) -> None:
    """The loss rises with the radius, PGD's with its steps, and FGSM's is never above PGD's."""
    inputs, labels = blobs(64, 1002)
    noise = torch.full(inputs.shape, 0.5)

    def attacked(eps: float, steps: int) -> float:
        moved = inputs  # unlike in `pgd` all of them go all the way
        for _ in range(steps):
            images = moved.clone().requires_grad_()
            gradient = torch.autograd.grad(F.cross_entropy(network(images), labels, reduction="sum"), images)[0]
            moved = (moved + STEP * eps / steps * gradient.sign()).clamp(0, 1)
            moved = torch.min(torch.max(moved, inputs - eps), inputs + eps)
        return loss(network, moved, labels)

    by_eps = [loss(network, fgsm(network, inputs, labels, eps / 255).inputs, labels) for eps in (0, 1, 2, 4, 8)]
    assert by_eps == sorted(by_eps) and by_eps[-1] > by_eps[0] + 0.2
    assert attacked(8 / 255, 20) >= attacked(8 / 255, 3) * 0.99
    defeats = [int(pgd(network, inputs, labels, eps / 255, 20, noise).defeated.sum()) for eps in (0.5, 2, 8, 32)]
    assert defeats == sorted(defeats) and defeats[-1] > 60
    weaker = int(fgsm(network, inputs, labels, 8 / 255).defeated.sum())
    assert weaker <= defeats[2]


def test_batches_and_restarts(splits: Splits) -> None:
    found = {}
    for batch_size, restarts in ((16, 1), (256, 1), (256, 3)):
        settings = Attacks(eps=(1, 4), steps=5, restarts=restarts, images=60)
        file = SuiteConfig(size=32, evaluate=Evaluate(batch_size=batch_size), attacks=settings)
        (result,) = run_evaluators(EvalContext(subject(), file, splits), ["attacks"])
        found[batch_size, restarts] = {one.name: one.hits for one in result.values}
        assert result.protocol["images"] == "60 of sample/test" and result.protocol["radii"] == [1, 4]
        assert "centre square 32 px" in result.protocol["preprocessing"]
        assert "sample/train: 960" in result.protocol["train"] and "rates 0.01, 0.03" in result.protocol["linear_grid"]
    one, other = found[16, 1], found[256, 1]
    assert list(one) == ["clean_top1", "fgsm_1_top1", "pgd_1_top1", "fgsm_4_top1", "pgd_4_top1"]
    for name in one:
        assert (one[name] == other[name]).mean() > 0.98, name
        assert (found[256, 3][name] <= other[name]).all(), f"{name}: more restarts made it stand"
    values = {name: hits.mean() for name, hits in other.items()}
    assert values["clean_top1"] > values["pgd_1_top1"] >= values["pgd_4_top1"]
    assert values["pgd_4_top1"] <= values["fgsm_4_top1"]


def test_pgd_defeats_all_that_an_independent_librarys_does(network: nn.Module) -> None:
    """foolbox's of the same radius, steps and step length; both start from the image itself, to be the same."""
    foolbox = pytest.importorskip("foolbox")
    inputs, labels = blobs(200, 1003)
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    steps = 10
    library = foolbox.attacks.LinfPGD(rel_stepsize=STEP / steps, steps=steps, random_start=False)
    for eps in (6 / 255, 9 / 255):
        ours = pgd(network, inputs, labels, eps, steps, torch.full(inputs.shape, 0.5)).defeated
        theirs = library(model, inputs, labels, epsilons=eps)[2]
        assert 0 < int(theirs.sum()) < 200
        assert (ours >= theirs).all(), f"{int((theirs & ~ours).sum())} of {int(theirs.sum())} stand at {eps:.3f}"


def test_autoattack_is_at_least_as_strong_as_pgd(splits: Splits) -> None:
    settings = Attacks(eps=(1,), steps=10, images=6)
    file = SuiteConfig(size=16, evaluate=Evaluate(batch_size=16, linear=Linear(epochs=5)), attacks=settings)
    weak, strong = run_evaluators(EvalContext(subject(), file, splits), ["attacks", "autoattack"])
    (found,) = strong.values
    after_pgd = next(one for one in weak.values if one.name == "pgd_1_top1")
    assert found.name == "autoattack_1_top1" and found.value <= after_pgd.value
    assert strong.protocol["batch_size"] == 16 and "against 9 classes" in strong.protocol["autoattack"]


@pytest.mark.slow
@pytest.mark.faults  # for its time
def test_autoattack_stays_in_the_ball(network: nn.Module) -> None:
    inputs, labels = blobs(6, 1004)
    before = torch.random.get_rng_state()
    other_layout = copy.deepcopy(network).to(memory_format=torch.channels_last)
    moved = attack(Classifier(other_layout, lambda logits: logits), inputs, labels, 2 / 255, 4, seed=0)
    assert (moved - inputs).abs().max() <= 2 / 255 + 1e-6 and moved.min() >= 0 and moved.max() <= 1
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.slow
def test_a_real_classifiers_gradients_are_not_masked(shared_data: Path, tmp_path: Path) -> None:
    """The way a suite goes: encoder with its normalisation, head; on what the classifier says of real images.

    The loss rises with radius and steps, noise of the same radius does next to nothing, a large radius defeats all,
    and foolbox defeats nothing that stands.
    """
    foolbox = pytest.importorskip("foolbox")
    from bgsweep.tracking.encoders import load_model
    from bgsweep.workflows.evaluate import on_device
    from tests.evaluation.efficientnet import write_weights

    who = on_device(load_model(write_weights(tmp_path / "weights.pth"), 112, tmp_path), "cpu")
    assert isinstance(who.head, nn.Module)
    network = nn.Sequential(who.network, who.head).eval()
    paths = sorted((shared_data / "clothing10" / "images" / "test").rglob("*.jpg"))[::47][:8]
    seen = np.stack([square(read_rgb(path), Preprocessing(resize=128, crop=112)) for path in paths])
    inputs = to_unit(torch.from_numpy(seen), who.device).contiguous()
    with torch.no_grad():
        labels = network(inputs).argmax(dim=1)
    middle = torch.full(inputs.shape, 0.5)
    clean = loss(network, inputs, labels)
    by_eps = [loss(network, fgsm(network, inputs, labels, eps / 255).inputs, labels) for eps in (0.1, 0.25, 0.5, 1)]
    assert clean < by_eps[0] and by_eps == sorted(by_eps)
    tiny = [pgd(network, inputs, labels, 0.02 / 255, steps, middle) for steps in (1, 3, 10)]
    standing = ~tiny[-1].defeated  # those that are defeated stop on the way
    by_steps = [loss(network, one.inputs[standing], labels[standing]) for one in tiny]
    assert int(standing.sum()) >= 4 and loss(network, inputs[standing], labels[standing]) < by_steps[0]
    assert by_steps == pytest.approx(sorted(by_steps), rel=0.01)
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    library = foolbox.attacks.LinfPGD(rel_stepsize=STEP / 10, steps=10, random_start=False)
    for eps in (0.05 / 255, 0.1 / 255):
        ours = pgd(network, inputs, labels, eps, 10, middle).defeated
        assert (ours >= library(model, inputs, labels, epsilons=eps)[2]).all()
    generator = torch.Generator().manual_seed(0)
    noisy = inputs + 0.1 / 255 * (2 * torch.rand(inputs.shape, generator=generator) - 1)
    with torch.no_grad():
        by_noise = int((network(noisy.clamp(0, 1)).argmax(dim=1) != labels).sum())
    assert by_noise < int(ours.sum()) and pgd(network, inputs, labels, 2 / 255, 10, middle).defeated.all()
