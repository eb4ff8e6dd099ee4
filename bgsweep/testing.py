"""Conformance tests for the parts of others (methods, evaluators, metrics, searchers, …), without a test framework.

Each `check_…` raises AssertionError with what is wrong. The built-in parts pass them too (`tests/test_testing.py`).
They run on a few of the images that come with bgsweep, in seconds, and draw nothing that is not seeded.
"""

import contextlib
import json
import math
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from bgsweep.config import Evaluate, Experiment, SuiteConfig, SweepConfig, resolve
from bgsweep.config.methods import method_section
from bgsweep.config.search import scheduler_of_another_package
from bgsweep.data import ImageDataset, Splits
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.data.datasets.wrappers import Subset
from bgsweep.errors import Stopped
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.online import open_metric
from bgsweep.evaluation.registry import open_evaluator
from bgsweep.models import ImageEncoder, build_encoder
from bgsweep.stopping import Request
from bgsweep.sweep.searchers import searcher_class
from bgsweep.training import Trainer, load_checkpoint, save_checkpoint, select_device
from bgsweep.training.encode import frozen_model

_SMALL: dict[str, dict[str, Any]] = {
    "encoder": {"name": "resnet10", "width": 8, "stem": "small"},
    "views": {"size": 16},
    "training": {"epochs": 2, "batch_size": 8, "precision": "fp32"},
    "optimizer": {"lr": 0.02},
    "data": {"loader_workers": 0},
    "workers": {"device": "cpu"},
}
"""An experiment of a fraction of a second."""


def check_method(method: Mapping[str, Any], overrides: Sequence[str] = ()) -> None:
    """Check one process's training by a method: its loss, its gradients, and that it resumes bit by bit.

    Args:
        method: its section of the configuration, such as ``{"name": "toys.config:ToyConfig", "embedding_dim": 8}``.
        overrides: ``key=value`` texts for what the method needs besides.
    """
    experiment = small_experiment(method, overrides)
    check_gradients(experiment)
    check_resume(experiment)


def small_experiment(method: Mapping[str, Any], overrides: Sequence[str] = ()) -> Experiment:
    """An experiment of two epochs of two steps, with all kinds of views that the method supports."""
    section = method_section(str(method["name"]))
    background = {"random": 0.5, **({"swap": 0.6} if section.supports_swaps else {})}
    crops = {"small_crops": 2, "small_size": 8} if section.supports_small_crops else {}
    small = {**_SMALL, "views": {**_SMALL["views"], **crops}}
    return resolve({"experiment": {**small, "background": background, "method": dict(method)}}, overrides).experiment


def check_gradients(experiment: Experiment) -> None:
    """A step gives a finite scalar loss, and finite gradients to all parameters that ask for them."""
    training = Trainer(experiment, sample_images(16), select_device(experiment))
    views = training._views(next(iter(training.batches.epoch(0, 0))))
    step = training.method.train()(views)
    assert step.loss.ndim == 0, f"the loss is not a scalar but has the shape {tuple(step.loss.shape)}"
    assert math.isfinite(float(step.loss.detach())), f"the loss of the first step is {float(step.loss.detach())}"
    for name, value in step.metrics.items():
        assert value.ndim == 0 and not value.requires_grad, f"metric {name}: give a detached scalar"
    step.loss.backward()
    wanted = {name: each.grad for name, each in training.method.named_parameters() if each.requires_grad}
    lost = [name for name, gradient in wanted.items() if gradient is None]
    assert not lost, f"no gradient reaches {_some(lost)}; freeze them by requires_grad_(False), or use them in the loss"
    broken = [name for name, gradient in wanted.items() if gradient is not None and not gradient.isfinite().all()]
    assert not broken, f"gradients that are not finite: {_some(broken)}"
    # Not `encoder` alone: that of DINO is the teacher, which follows another one that is trained.
    encoders = [module for module in training.method.modules() if isinstance(module, ImageEncoder)]
    trained = [each.grad for encoder in encoders for each in encoder.parameters() if each.grad is not None]
    assert any(gradient.any() for gradient in trained), "no encoder gets a gradient; is the loss detached from it?"


def check_resume(experiment: Experiment) -> None:
    """A run that is stopped after its first step and goes on from its checkpoint ends as one that was not stopped.

    All that a method needs to go on belongs into parameters and buffers, and its draws into torch's global generator.
    """
    whole = Trainer(experiment, sample_images(16), select_device(experiment))
    expected = [whole.step_epoch() for _ in range(experiment.training.epochs)][-1]
    first = Trainer(experiment, sample_images(16), select_device(experiment), asked=lambda: Request.LEAVE)
    with contextlib.suppress(Stopped):
        first.step_epoch()
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder, "state.pt"), first.state_dict())
        state = load_checkpoint(Path(folder, "state.pt"))
    torch.rand(7)  # another process's generator stands elsewhere
    rest = Trainer(experiment, sample_images(16), select_device(experiment))
    rest.load_state_dict(state)
    found: dict[str, float] = {}
    while rest.epoch < experiment.training.epochs:
        found = rest.step_epoch()
    before, after = whole.method.state_dict(), rest.method.state_dict()
    assert before.keys() == after.keys(), f"tensors that come and go: {_some(before.keys() ^ after.keys())}"
    other = [name for name in before if not torch.equal(before[name], after[name])]
    assert not other, f"a resumed run differs from an uninterrupted one in {_some(other)}"
    assert found["loss"] == expected["loss"], f"loss after resuming: {found['loss']}, not {expected['loss']}"


def check_two_workers(method: Mapping[str, Any], overrides: Sequence[str] = ()) -> None:
    """Two workers with half the batch each come to the same losses and weights as one with the whole batch.

    Takes ten seconds. A script that calls it needs ``if __name__ == "__main__":``, since it starts processes.
    """
    wrong = differences_of_two_workers({"it": two_and_one(method, overrides)})["it"]
    assert not wrong, f"two workers differ from one in {_some(wrong)}"


def two_and_one(method: Mapping[str, Any], overrides: Sequence[str] = ()) -> tuple[Experiment, Experiment]:
    """One experiment for two workers and for one: with shared statistics of BatchNorm, or in the same groups."""
    section = method_section(str(method["name"]))
    shared = [*overrides, "training.epochs=3"]
    if section.supports_sync_bn:
        one = small_experiment(method, shared)
        return one.with_values({"training.sync_bn": True}), one
    one = small_experiment({**method, "split_bn": 2 * int(method.get("split_bn", 1))}, shared)
    return one.with_workers(2), one


def differences_of_two_workers(cases: Mapping[str, tuple[Experiment, Experiment]]) -> dict[str, list[str]]:
    """For each pair of experiments, of two workers and of one, the names of tensors and losses that differ."""
    with tempfile.TemporaryDirectory() as folder:
        together = {name: pair[0].model_dump(mode="json") for name, pair in cases.items()}
        mp.spawn(_work, args=(folder, together), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
        return {name: _differences(Path(folder), name, pair) for name, pair in cases.items()}


def _differences(folder: Path, name: str, pair: tuple[Experiment, Experiment]) -> list[str]:
    first, second = (torch.load(folder / f"{name} {rank}.pt", weights_only=True) for rank in (0, 1))
    one = _trained(pair[1], 0, 1)
    if not pair[0].training.sync_bn:  # each worker keeps its own statistics, of as many batches as it had groups
        one = {key: value for key, value in one.items() if not key.endswith(_STATISTICS)}
    close = partial(torch.allclose, rtol=1e-6, atol=1e-8)
    return [key for key in one if not (close(first[key], one[key]) and torch.equal(first[key], second[key]))]


_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def _work(rank: int, folder: str, cases: dict[str, dict[str, Any]]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    for name, tree in cases.items():
        torch.save(_trained(Experiment.model_validate(tree), rank, 2), Path(folder, f"{name} {rank}.pt"))
    dist.destroy_process_group()


def _trained(experiment: Experiment, rank: int, world_size: int) -> dict[str, torch.Tensor]:
    """The weights after epochs of one step, and the losses under `losses`.

    In double precision: so small networks on so few images are steep, and float32's rounding, which depends on how a
    batch is shared out, grows a thousandfold in three steps.
    """
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    try:
        with patch.object(torch.Tensor, "float", torch.Tensor.double):
            training = Trainer(experiment, sample_images(8), select_device(experiment), rank, world_size)
            losses = [training.step_epoch()["loss"] for _ in range(experiment.training.epochs)]
    finally:
        torch.set_default_dtype(torch.float32)
    return {**training.method.state_dict(), "losses": torch.tensor(losses, dtype=torch.float64)}


def check_searcher(algorithm: str, options: Mapping[str, Any] | None = None) -> None:
    """A searcher's values lie in the space, and the same calls give the same values: sweeps resume from a journal."""
    first = _proposals(algorithm, options)
    assert first, "it proposes nothing"
    assert _proposals(algorithm, options) == first, "another searcher, with the same seed and calls, proposes others"


def _proposals(algorithm: str, options: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    config = _searched(algorithm, options)
    kind = searcher_class(config)
    searcher, limit = kind(config), kind.limit(config)
    searcher.add_fixed("t00", {"background.remove": 0.25, "optimizer.lr": 0.03, "method.queue_size": 16})
    searcher.on_end("t00", "completed", {"knn_top1": 0.2})
    found = []
    for number in range(1, 9 if limit is None else 1 + limit):
        trial = f"t{number:02d}"
        values = searcher.propose(trial)
        walked = list(config.space.walk(values))
        assert {key for key, _, _ in walked} == set(values), f"{trial} has the keys {_some(values)}, not the space's"
        for key, _, distribution in walked:
            assert distribution.contains(values[key]), f"{trial}: {key}={values[key]!r} lies outside the space"
        assert config.typed(values) == values, f"{trial}: give whole numbers as int; return self.config.typed(values)"
        found.append(values)
        searcher.on_result(trial, 1, {"knn_top1": 0.1 + 0.01 * number})
        searcher.on_end(trial, ("completed", "stopped", "failed")[number % 3], {"knn_top1": 0.1 + 0.01 * number})
    return found


def _searched(algorithm: str, options: Mapping[str, Any] | None) -> SweepConfig:
    search = {"algorithm": algorithm, "options": dict(options or {}), "trials": 9}
    exhaustive = resolve({"search": {"algorithm": algorithm, "options": dict(options or {})}}).search.exhaustive
    space: dict[str, Any] = {
        "background.remove": {"choice": [0.0, 0.25]} if exhaustive else {"uniform": [0.0, 0.5]},
        "optimizer.lr": {"choice": [0.03, 0.1]} if exhaustive else {"loguniform": [0.01, 0.1]},
        "method.queue_size": {"choice": [16, 32]},
    }
    experiment = {**_SMALL, "method": {"name": "moco_v2", "queue_size": 16}}
    return resolve({"experiment": experiment, "space": space, "search": search})


def check_scheduler(name: str, options: Mapping[str, Any] | None = None) -> None:
    """A scheduler of another package decides the same on the same results: sweeps resume from a journal.

    Args:
        name: as in `search.scheduler`.
        options: its `search.scheduler_options`.
    """
    first = _decisions(name, options)
    assert _decisions(name, options) == first, "another rule, with the same seed and calls, decides otherwise"
    assert not all(first), "it stops every trial at its first result, also the best"


def _decisions(name: str, options: Mapping[str, Any] | None) -> list[bool]:
    search = {"scheduler": name, "scheduler_options": dict(options or {})}
    config = resolve({"experiment": _SMALL, "search": search})
    rule, draw = scheduler_of_another_package(name)(config), np.random.default_rng(0)
    found = []
    for epoch, number in [(epoch, number) for epoch in range(1, 5) for number in range(8)]:
        stops = rule.stops(f"t{number:02d}", epoch, float(draw.normal(0.1 * number, 0.02)))
        assert isinstance(stops, bool), f"stops() gives {stops!r}, not True or False"
        found.append(stops)
    return found


def check_evaluator(name: str, settings: Mapping[str, Any] | None = None, **suite: Any) -> None:
    """An evaluator leaves the encoder as it is, BatchNorm's statistics included, and repeats its values.

    Args:
        name: as in `--suite`.
        settings: its section under `plugins:`.
        suite: further sections of a suite's YAML file.
    """
    plugins = {name: dict(settings)} if settings is not None else {}
    config = SuiteConfig.model_validate({"size": 16, "evaluate": {"repeats": 1}, "plugins": plugins, **suite})
    with _unchanged_encoder() as encoder:
        context = EvalContext(frozen_model(encoder, torch.device("cpu")), config, _sample_splits())
        found, again = (open_evaluator(name, each).run(name) for each in (context, context.anew()))
    names = [value.name for value in found.values]
    assert names, "it yields no value"
    assert len(set(names)) == len(names), f"two values have one name: {_some(names)}"
    for one, other in zip(found.values, again.values, strict=True):
        assert one.name == other.name and np.array_equal(one.hits, other.hits), f"{one.name} differs if run again"
        assert one.hits.shape == one.counted.shape, f"{one.name}: as many `hits` as `counted` are needed"
    json.dumps(found.protocol)


def check_metric(metric: Mapping[str, Any]) -> None:
    """A metric of the online evaluation leaves the encoder as it is, repeats its values, and survives a collapse.

    Args:
        metric: its section, such as ``{"name": "toys.config:SpreadConfig", "power": 2}``.
    """
    (section,) = Evaluate.model_validate({"metrics": [dict(metric)]}).metrics
    assert section.values, "its section names no values"
    config, splits = SuiteConfig(size=16), _sample_splits()
    with _unchanged_encoder() as encoder:
        model = frozen_model(encoder, torch.device("cpu"))
        contexts = [EvalContext(model, config, splits, split="validation") for _ in range(2)]
        found, again = ([*open_metric(section, each).measure()] for each in contexts)
    names = [one.name for one in found]
    assert sorted(names) == sorted(section.values), f"it yields {_some(names)}, and its section {_some(section.values)}"
    other = [one.name for one in found if one not in again]
    assert not other, f"{_some(other)}: differs if run again"
    for one in found:
        assert isinstance(one.value, float) and math.isfinite(one.value), f"{one.name} is {one.value!r}; give a number"
        assert one.error is None or one.error >= 0, f"{one.name} has the standard error {one.error!r}"
    blind = replace(model, encode=lambda images: torch.ones(len(images), 8))
    for one in open_metric(section, EvalContext(blind, config, splits, split="validation")).measure():
        assert math.isfinite(one.value), f"{one.name} is {one.value} where all features are the same; give the worst"


@contextlib.contextmanager
def _unchanged_encoder() -> Iterator[ImageEncoder]:
    """A small encoder, which must be the same at the end."""
    small = resolve({"experiment": _SMALL}).experiment
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = build_encoder(small.encoder, [16]).eval()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    yield encoder
    moved = [key for key, value in encoder.state_dict().items() if not torch.equal(before[key], value)]
    assert not moved, f"it changes the encoder: {_some(moved)}"
    assert not encoder.training, "it leaves the encoder in training mode"


def _sample_splits() -> Splits:
    return Splits(sample_images(80), sample_images(40, "validation"), sample_images(40, "test"))


def check_dataset(open_dataset: Callable[[], ImageDataset]) -> None:
    """A dataset has the same ids, labels, digests and samples each time it is opened, and in other processes.

    Args:
        open_dataset: opens it; called twice.
    """
    one, other = open_dataset(), open_dataset()
    assert len(one) > 0 and len(one) == len(one.ids) == len(one.labels), "ids and labels need an entry for each image"
    assert len(set(one.ids)) == len(one), "two images have one id; random draws are keyed by it"
    assert list(one.ids) == list(other.ids), "other ids, or another order, where it is opened again"
    assert np.array_equal(one.labels, other.labels) and list(one.classes) == list(other.classes), "labels differ"
    assert set(np.unique(one.labels).tolist()) <= {-1, *range(len(one.classes))}, "labels that are no class's number"
    assert one.digests() == other.digests(), "digests() differ where it is opened again"
    assert ("masks" in one.digests()) == one.has_masks, "digests() need `masks` where has_masks, and only there"
    sent: ImageDataset = pickle.loads(pickle.dumps(one))  # as loader processes get it
    for index in sorted({0, len(one) // 2, len(one) - 1}):
        first, second = one[index], sent[index]
        assert first.id == one.ids[index] and first.label == one.labels[index], f"{first.id}: another id or label"
        image = first.image
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, f"{first.id}: RGB of uint8 needed"
        assert np.array_equal(image, second.image), f"{first.id}: another image after pickling"
        if one.has_masks and first.mask is not None:
            assert first.mask.shape == image.shape[:2], f"{first.id}: the mask has another size than the image"
            assert np.array_equal(first.mask, second.mask), f"{first.id}: another mask after pickling"  # type: ignore[arg-type]


def sample_images(count: int, split: str = "train") -> ImageDataset:
    """Images that come with bgsweep, spread evenly over a split."""
    whole = EmbeddedSample(split, 24)
    return Subset(whole, np.arange(0, len(whole), len(whole) // count)[:count], f"{split} of the bundled images")


def _some(names: Any) -> str:
    found = sorted(map(str, names))
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
