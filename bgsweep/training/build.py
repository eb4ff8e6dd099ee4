"""An experiment's method, built from its seed and placed on its device."""

from inspect import signature
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from bgsweep.config import Experiment, Training
from bgsweep.data.sample import UNLABELLED, ImageDataset
from bgsweep.errors import UserError
from bgsweep.methods import Method, build_method
from bgsweep.models import ImageEncoder, convert_sync_bn
from bgsweep.training.device import Placement
from bgsweep.training.initial_weights import initial_weights

_NAMES = signature(DistributedDataParallel).parameters
NO_BROADCAST: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers": False
}
"""Buffers are not sent at each step; torch warns of the old name since 2.14."""


def initial_method(experiment: Experiment, classes: int, random: bool = False) -> Method:
    """The experiment's method before its first step; its seed gives the same weights on every worker.

    Args:
        random: leave `encoder.weights` aside, for a method whose weights are replaced anyway.
    """
    with torch.random.fork_rng(devices=[]):
        weights = None if random or experiment.encoder.weights is None else initial_weights(experiment)
        torch.manual_seed(experiment.seed)
        return build_method(experiment, classes, weights)


def count_classes(experiment: Experiment, dataset: ImageDataset) -> int:
    """The number of classes; a method that needs labels needs one for every image."""
    unlabelled = int((dataset.labels == UNLABELLED).sum())
    if experiment.method.needs_labels and unlabelled:
        raise UserError(
            f"method.name: {experiment.method.name} needs labels, but {unlabelled} of {len(dataset)} images in "
            f"{dataset.name} have none; put them into one folder for each class"
        )
    return len(dataset.classes)


def place_method(method: Method, training: Training, placement: Placement, world_size: int) -> Method:
    """The method on its device, with synchronised BatchNorm and compiled encoders where configured."""
    if training.sync_bn and world_size > 1:
        convert_sync_bn(method)
    method.to(placement.device, memory_format=placement.memory_format)  # type: ignore[call-overload]
    for module in method.modules():
        if isinstance(module, ImageEncoder):
            module.memory_format = placement.memory_format
            if training.compile:
                module.compile()
    return method


def distribute(method: Method, placement: Placement) -> DistributedDataParallel:
    # The queue is identical on all workers by construction, and each BatchNorm keeps its own worker's statistics, as in
    # MoCo: broadcasting 33 MB of queue at every step would change nothing.
    devices = [placement.device] if placement.device.type == "cuda" else None
    return DistributedDataParallel(method, device_ids=devices, gradient_as_bucket_view=True, **NO_BROADCAST)
