"""Experiments, trainers and batches that the parts measure, at real size or at a size for a CPU and a test."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from bgsweep.augment.pipeline import LARGE_VIEWS
from bgsweep.config import Experiment, resolve
from bgsweep.config.methods import METHODS
from bgsweep.data.batch import Batch
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.models import ImageEncoder
from bgsweep.training import Trainer, select_device
from bgsweep.training.build import initial_method

_SMALL = {
    "queue_size": 64,
    "hidden_dim": 32,
    "embedding_dim": 16,
    "prototypes": 20,
    "freeze_prototypes": 0,
}
"""Sizes of the toy's heads, for those methods that have such a key."""


@dataclass(frozen=True)
class Scale:
    """Real sizes, or toy ones: the same code on networks and images that a CPU computes in seconds."""

    toy: bool

    def pick(self, real: Any, toy: Any) -> Any:
        return toy if self.toy else real

    @property
    def encoder(self) -> dict[str, Any]:
        """The encoder of the checks, which are about what is computed and not about speed."""
        return self.pick({"name": "resnet18"}, {"name": "resnet10", "width": 4, "stem": "small"})

    def method(self, name: str, **values: Any) -> dict[str, Any]:
        """A method's section; at real size its published one."""
        known = METHODS[name].model_fields
        small = {key: value for key, value in _SMALL.items() if key in known} if self.toy else {}
        return {"name": name, **small, **values}

    def views(self, name: str, size: int, small_size: int) -> dict[str, Any]:
        """The `views` section: SwAV has small crops too."""
        crops = {"small_crops": self.pick(6, 2), "small_size": small_size} if METHODS[name].supports_small_crops else {}
        return {"size": size, **crops}


def device_of(toy: bool) -> str:
    """`cuda`, or `cpu` for the toy.

    Raises:
        RuntimeError: there is no GPU, and this is not the toy.
    """
    if toy:
        return "cpu"
    if not torch.cuda.is_available():
        raise RuntimeError("torch finds no GPU here; `--toy` rehearses the parts on the CPU")
    return "cuda"


def resolved(tree: dict[str, Any], device: str) -> Experiment:
    """An experiment on one device, whose views this process makes."""
    data = {"images": "sample", "loader_workers": 0, **tree.get("data", {})}
    workers = {"count": 1, "device": device}
    return resolve({"experiment": {**tree, "data": data, "workers": workers}}).experiment


def started(experiment: Experiment) -> Trainer:
    """A trainer before its first step, on the images that come with bgsweep."""
    training = Trainer(experiment, _sample(experiment.data.resize), select_device(experiment))
    training.model.train()
    return training


@cache
def _sample(resize: int | None) -> EmbeddedSample:
    return EmbeddedSample("train", resize)


def real_batches(training: Trainer, count: int) -> list[Batch]:
    """The first batches of the first epoch; pinned where the device is a GPU."""
    batches = []
    for epoch in range(count):
        for batch in training.batches.epoch(epoch):
            batches.append(batch)
            if len(batches) == count:
                return batches
    return batches


def noise(experiment: Experiment, device: torch.device) -> Batch:
    """A batch of noise on the device, of the shapes that the experiment's views have."""
    views, size = experiment.views, experiment.training.batch_size
    sides = [views.size] * LARGE_VIEWS + [views.small_size] * views.small_crops

    def image(side: int) -> Tensor:
        return torch.randint(0, 256, (size, side, side, 3), dtype=torch.uint8, device=device)

    labels = torch.randint(0, 10, (size,), device=device)
    return Batch([image(side) for side in sides], labels, torch.arange(size), {})


def networks(experiment: Experiment, classes: int) -> Any:
    """The experiment's networks before their first step, placed and compiled as its trainer does it, and no trainer."""
    placement = select_device(experiment)
    method = initial_method(experiment, classes)
    method.to(placement.device).to(memory_format=placement.memory_format)
    if experiment.training.compile:
        for module in method.modules():
            if isinstance(module, ImageEncoder):
                module.compile()
    return method.train()
