"""Numbers do not depend on who sees the images: this process or Ray workers, in which batches, with which threads."""

import json
import shutil
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bgsweep.config import (
    Attacks,
    Data,
    Encoder,
    Evaluate,
    EvaluationWorkers,
    Linear,
    Preprocessing,
    Sets,
    SuiteConfig,
)
from bgsweep.data import open_splits
from bgsweep.data.datasets.wrappers import Subset
from bgsweep.distributed import evaluation_workers, resources
from bgsweep.distributed.evaluation_workers import RayWorkers, wants_workers
from bgsweep.errors import UserError
from bgsweep.evaluation.datasets.background_variants import VariantSet
from bgsweep.evaluation.datasets.export_variants import write_release
from bgsweep.evaluation.evaluator import Result
from bgsweep.evaluation.evaluators import linear
from bgsweep.evaluation.evaluators.linear_published import PROTOCOLS, fit
from bgsweep.evaluation.registry import run_evaluators
from bgsweep.models import build_encoder
from bgsweep.tracking.encoders import Loaded
from bgsweep.workflows.evaluate import measure, opened

NAMES = ["knn", "linear", "backgrounds", "challenge", "attacks", "imagenet9", "imagenet9_challenge"]


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    """An untrained network whose classes differ from image to image."""
    torch.manual_seed(0)
    encoder = build_encoder(Encoder(name="resnet10", width=8, stem="small"), [32]).eval().requires_grad_(False)
    head = nn.Linear(encoder.feature_dim, 1000).requires_grad_(False)
    head.weight *= 30
    return Loaded(encoder, head, {})


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    """Twenty images in the layout of ImageNet-9, and a mapping of ImageNet's classes to ten."""
    place = tmp_path_factory.mktemp("spread")
    test = open_splits(Data(images="sample", resize=40, cache=True)).test
    chosen = np.concatenate([np.flatnonzero(test.labels == label)[:2] for label in range(10)])
    variants = VariantSet(Subset(test, chosen, "twenty"), None, Evaluate(), 32)
    write_release(variants, place / "in9", np.zeros((1, 1, 3), np.uint8))
    (place / "map.json").write_text(json.dumps({str(label): label % 10 for label in range(1000)}))
    return Sets(imagenet9=str(place / "in9"), in_to_in9=str(place / "map.json"))


def suite(sets: Sets, workers: int, batch_size: int, threads: int) -> SuiteConfig:
    return SuiteConfig(
        data=Data(images="sample", resize=40, cache=True, validation="test", test="test"),
        size=32,
        preprocessing=Preprocessing(resize=36, crop=32),
        sets=sets,
        evaluate=Evaluate(batch_size=batch_size, linear=Linear(epochs=5)),
        attacks=Attacks(eps=(1,), steps=3, images=40),
        threads=threads,
        device="cpu",
        workers=EvaluationWorkers(count=workers, cpus=1, at_least=30),
    )


def measured(loaded: Loaded, file: SuiteConfig, names: list[str]) -> list[Result]:
    return measure(loaded, names, file)[1]


def test_numbers_are_the_same_here_and_on_one_or_two_ray_workers(loaded: Loaded, sets: Sets) -> None:
    here = measured(loaded, suite(sets, 0, 256, 4), NAMES)
    for workers, batch_size, threads in ((2, 16, 1), (1, 256, 4)):
        there = measured(loaded, suite(sets, workers, batch_size, threads), NAMES)
        for one, other in zip(here, there, strict=True):
            for value, again in zip(one.values, other.values, strict=True):
                name = f"{one.evaluator}/{value.name} with {workers} workers"
                assert value.name == again.name and len(value.hits) == len(again.hits), name
                # An image may lie on the border between two classes to within the order of a sum.
                assert (value.hits != again.hits).sum() <= max(1, len(value.hits) // 100), name
            protocols = [{**each.protocol, "linear_held_out_top1": 0} for each in (one, other)]
            assert protocols[0] == protocols[1]
    values = {f"{one.evaluator}/{value.name}": value.value for one in here for value in one.values}
    assert 0.1 < values["knn/knn_top1"] < 1 and 0 < values["imagenet9/original"] < 1
    assert values["attacks/pgd_1_top1"] <= values["attacks/clean_top1"]


def test_workers_share_the_probes_grid_and_choose_as_one_process_does(
    loaded: Loaded, sets: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = suite(sets, 2, 64, 1)
    train, trained_here = linear._train, list[int]()

    def counting(source: Any, chosen: Any, grid: Any, *rest: Any) -> Any:
        trained_here.append(len(grid))
        return train(source, chosen, grid, *rest)

    monkeypatch.setattr(linear, "_train", counting)
    settings = file.evaluate.linear
    with RayWorkers(partial(opened, loaded, file), file) as workers:
        context = opened(loaded, file, workers)
        features = context.features.train()
        apart = linear.linear_head(context)
        assert context.processes == 2 and trained_here == [1]  # the chosen pair, on all images
        grid = sorted(product(settings.lrs, settings.weight_decays))
        scores = linear._scores_apart(context, features, settings, grid)
    here = linear.fit_linear(features, settings, context.features.classes)
    assert trained_here == [1, len(grid), 1]
    assert torch.equal(apart.weight, here.weight) and torch.equal(apart.bias, here.bias)
    assert (apart.lr, apart.weight_decay, apart.held_out_top1) == (here.lr, here.weight_decay, here.held_out_top1)
    source = linear._Source(features, torch.device("cpu"))
    assert torch.equal(scores, linear._score(source, grid, settings, context.features.classes))
    assert len(scores.unique()) > 2  # pairs that learn unlike one another


def test_published_linear_evaluations_and_errors_come_from_workers_too(
    loaded: Loaded, sets: Sets, tmp_path: Path
) -> None:
    file = suite(sets, 1, 64, 2)
    shutil.copytree(str(sets.imagenet9), tmp_path / "in9")
    broken = next((tmp_path / "in9" / "original" / "val").rglob("*.JPEG"))
    broken.write_bytes(b"no picture")
    bad = file.model_copy(update={"sets": sets.model_copy(update={"imagenet9": str(tmp_path / "in9")})})
    protocol = replace(PROTOCOLS["linear_swav"], epochs=1)
    with RayWorkers(partial(opened, loaded, file), bad) as workers:
        one, other = (fit(opened(loaded, file, who), protocol) for who in (None, workers))
        torch.testing.assert_close(one.weight, other.weight, atol=1e-5, rtol=1e-4)
        with pytest.raises(UserError, match=f"{broken.name}: cannot be read"):
            run_evaluators(opened(loaded, bad, workers), ["imagenet9_challenge"])


def test_workers_are_asked_for_or_there_is_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert not wants_workers(SuiteConfig()) and wants_workers(SuiteConfig(workers=EvaluationWorkers(count=2)))
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert wants_workers(SuiteConfig()) and not wants_workers(SuiteConfig(workers=EvaluationWorkers(count=0)))


CPU, GPU = EvaluationWorkers(cpus=4), EvaluationWorkers(cpus=4, gpus=0.5)


@pytest.mark.parametrize(
    ("workers", "there", "count"),
    [
        (CPU, [{"CPU": 6.0}] * 3, 3),  # two cores of each node are left over
        (CPU, [{"CPU": 12.0, "GPU": 4.0}], 3),  # cores for three of the GPUs
        (CPU, [{"CPU": 64.0}, {"CPU": 8.0, "GPU": 2.0}], 2),
        (GPU, [{"CPU": 12.0, "GPU": 1.0}], 2),
        (CPU.model_copy(update={"count": 2}), [{"CPU": 8.0, "GPU": 2.0}], 2),
    ],
)
def test_as_many_workers_start_as_nodes_have_room_for(
    workers: EvaluationWorkers, there: list[Any], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert started(workers, there, monkeypatch) == count


@pytest.mark.parametrize(
    ("workers", "there", "told"),
    [
        (CPU, [{}], "1 x (4 CPUs) are needed, and the Ray cluster has nodes of 1 x (0 CPUs); "),  # the head alone
        (CPU, [{"CPU": 2.0}] * 4, "1 x (4 CPUs) are needed, and the Ray cluster has nodes of 4 x (2 CPUs); "),
        (
            CPU.model_copy(update={"count": 2}),
            [{"CPU": 16.0, "GPU": 1.0}],
            "2 x (4 CPUs, 1 GPUs) are needed, and the Ray cluster has nodes of 1 x (16 CPUs, 1 GPUs); ",
        ),
    ],
)
def test_workers_that_fit_nowhere_are_refused(
    workers: EvaluationWorkers, there: list[Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError) as refused:
        started(workers, there, monkeypatch)
    cure = "lower workers.count (0: no workers), workers.cpus or workers.gpus, start more or larger nodes"
    assert str(refused.value) == told + cure


def started(workers: EvaluationWorkers, there: list[Any], monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of actors that are asked for on a cluster of such nodes."""
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.put", lambda made: made)
    total = {key: sum(node.get(key, 0.0) for node in there) for key in set[str]().union(*there)}
    monkeypatch.setattr("ray.cluster_resources", lambda: total)
    monkeypatch.setattr(resources, "nodes", lambda: there)

    def pool(actor: type, arguments: Any, count: int, options: dict[str, float], **_: str) -> SimpleNamespace:
        assert options == {"num_cpus": workers.cpus, "num_gpus": gpus} and arguments == (workers.cpus,)
        return SimpleNamespace(actors=[actor] * count, close=lambda: None)

    gpus = (workers.gpus or 1.0) if "GPU" in total else 0.0
    monkeypatch.setattr(evaluation_workers, "ActorPool", pool)
    with RayWorkers(no_context, SuiteConfig(workers=workers)) as found:
        return found.count


def no_context() -> Any:
    """Stands for an encoder's context, which no worker makes here."""
