"""Time, memory, disk and cores of one trial, by arithmetic: nothing is trained, and no image is opened.

Networks are built without memory (torch's `meta` device), so that their size, their operations and what they keep for
the backward pass are counted and not guessed. How fast a GPU computes is an estimate, unless measured rows of
`python -m benchmarks.gpu` are given.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bgsweep.config import Experiment, SweepConfig
from bgsweep.errors import UserError
from bgsweep.methods import build_method
from bgsweep.models import ImageEncoder
from bgsweep.sweep.searcher import total_trials

GPU_FLOPS = 20e12
"""Estimated FLOP/s that training reaches on a GPU of A100's class: 600 images/s of MoCo-v2 with ResNet-50 at 224 px."""

CORE_SECONDS = {"large": 0.00228, "on_device": 0.00159, "small_crops": 0.00310, "evaluation": 0.0011}
"""Seconds of a core for an image of 500 x 375 px, measured (benchmarks/RESULTS.md): both views, both views with colors
on the device, SwAV's eight views; an image of an evaluation."""

RESIZING = {"linear": 1.0, "bilinear": 1.14, "bicubic": 1.19, "area": 1.36}
"""Times as many seconds for the views, by `views.interpolation`; the seconds above are those of `linear`."""

IMAGE_BYTES, MASK_BYTES = 110e3, 1.4e3
NODE_GPUS = 8
GPU_GIB = 80.0
_EVALUATION_SHARE = 0.02


@dataclass(frozen=True)
class Measured:
    """Figures of one GPU from `benchmarks.gpu`: FLOP/s and GiB an image by encoder, and a loader process's speed."""

    source: str = ""
    flops: dict[str, float] | None = None
    gib_per_image: dict[tuple[str, str], float] | None = None
    images_per_core: float | None = None

    def rate(self, encoder: str) -> float:
        """FLOP/s that training of an encoder reaches."""
        return (self.flops or {}).get(encoder, GPU_FLOPS)


def read_measured(path: Path) -> Measured:
    """The rows of a file that `python -m benchmarks.gpu` wrote.

    Raises:
        UserError: the file is missing or has no row of a step.
    """
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        found = {(row["part"], row["name"]): row["values"] for row in rows if row.get("values")}
        # Without the rows of compiled networks and of split BatchNorm ("resnet50 moco_v2, compiled").
        plain = {name: values for (part, name), values in found.items() if part == "step" and "," not in name}
        steps = {tuple(name.split()): values for name, values in plain.items() if "gflop_per_image" in values}
        flops: dict[str, float] = {}
        for (encoder, _), values in steps.items():
            reached = values["images_per_second"] * values["gflop_per_image"] * 1e9
            flops[encoder] = min(reached, flops.get(encoder, math.inf))  # the slowest method: no plan too hopeful
        gib = {names: values["memory_gib"] / values["batch"] for names, values in steps.items()}
        machine = found.get(("machine", "machine"), {}).get("machine", path.name)
        loader = found.get(("whole", "loader alone"), {}).get("images_per_second_and_process")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"--measured: {path} is no file of `python -m benchmarks.gpu` ({error}); see build/gpu"
        ) from error
    if not flops:
        raise UserError(f"--measured: {path} has no row of the part `step`; run `make gpu`")
    return Measured(machine, flops, gib, loader)


@dataclass(frozen=True)
class Footprint:
    """The resources of one trial.

    Attributes:
        gpus: GPUs of a trial.
        images_per_second: of one GPU.
        epoch_seconds: training only, of one seed.
        evaluation_seconds: one online evaluation, of one seed.
        evaluation_share: of a run's time, in [0, 1].
        trial_hours: the whole run, with all seeds.
        gpu_gib: memory of each GPU.
        loader_cores: cores that make views, for each GPU.
        views_gib: memory of the batches that wait, on each node.
        checkpoint_mib: one checkpoint, of all seeds.
        checkpoints_gib: the checkpoints that stay when the sweep has ended.
        data_gb: images and masks, on each node.
        source: `estimated`, or which machine the figures were measured on.
        warnings: what will starve, not fit or be killed, one line each.
    """

    gpus: float
    images_per_second: float
    epoch_seconds: float
    evaluation_seconds: float
    evaluation_share: float
    trial_hours: float
    gpu_gib: float
    loader_cores: float
    views_gib: float
    checkpoint_mib: float
    checkpoints_gib: float
    data_gb: float
    source: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Network:
    """Counted on the meta device: operations of the encoder on a large view, and bytes."""

    forward_flops: float
    saved_bytes: float  # of a large view for the backward pass, in float32
    trained_bytes: int
    state_bytes: int


def footprint(config: SweepConfig, gpus: float, images: int, measured: Measured | None = None) -> Footprint:
    """A trial of the config on ``gpus`` GPUs, with ``images`` in its training set before any are held out."""
    experiment, measured = config.experiment, measured or Measured()
    held = sum(getattr(experiment.data, split) is None for split in ("validation", "test")) * experiment.data.holdout
    train = round(images * (1 - held))
    network = _network(experiment)
    rate = measured.rate(experiment.encoder.name) / flops_per_image(experiment, network)
    steps = train // experiment.training.batch_size
    epoch = steps * experiment.training.batch_size / (rate * gpus)
    evaluation = _evaluation_seconds(config, network, measured, gpus, train, images - train)
    every, epochs = config.evaluate.every, experiment.training.epochs
    seeds = config.search.seeds
    hours = seeds * (epochs * epoch + math.ceil(epochs / every) * evaluation) / 3600
    share = evaluation / (every * epoch + evaluation)
    state = network.state_bytes + network.trained_bytes * (2 if experiment.optimizer.name == "adamw" else 1)
    checkpoint, trials, stay = seeds * state, total_trials(config), config.search.keep_checkpoints
    keeps = 2 if experiment.workers.count > 1 else 1
    found = Footprint(
        gpus=gpus,
        images_per_second=rate,
        epoch_seconds=epoch,
        evaluation_seconds=evaluation,
        evaluation_share=share,
        trial_hours=hours,
        gpu_gib=seeds * _gpu_bytes(experiment, network, measured) / 2**30,
        loader_cores=rate * _core_seconds(experiment, measured),
        views_gib=seeds * _views_bytes(experiment) * min(NODE_GPUS, gpus) / 2**30,
        checkpoint_mib=checkpoint / 2**20,
        checkpoints_gib=checkpoint * keeps * (trials if stay is None else min(trials, stay + 1)) / 2**30,
        data_gb=images * (IMAGE_BYTES + (MASK_BYTES if experiment.data.has_masks else 0)) / 1e9,
        source=f"measured on {measured.source}" if measured.flops else "estimated",
        warnings=(),
    )
    return Footprint(**{**vars(found), "warnings": tuple(_warnings(config, found))})


def flops_per_image(experiment: Experiment, network: _Network) -> float:
    """Of one step: a backward pass costs two forward passes; small crops cost as much as they have area."""
    trained, target = experiment.method.passes
    views = experiment.views
    trained += views.small_crops * (views.small_size / views.size) ** 2
    return (3 * trained + target) * network.forward_flops


@lru_cache(maxsize=8)
def _network(experiment: Experiment) -> _Network:
    with torch.device("meta"):
        method = build_method(experiment, classes=1000)
    trained = sum(each.nbytes for each in method.parameters() if each.requires_grad)
    # Where a method keeps a moving average, what it trains is an encoder of the same size.
    encoder: ImageEncoder = method.encoder.train().requires_grad_(True)
    batch = 2
    images = torch.empty(batch, 3, experiment.views.size, experiment.views.size, device="meta")
    with FlopCounterMode(display=False) as counter, _saved(encoder) as saved:
        encoder(images)
    return _Network(
        forward_flops=counter.get_total_flops() / batch,
        saved_bytes=sum(saved.values()) / batch,
        trained_bytes=trained,
        state_bytes=sum(each.nbytes for each in method.state_dict().values()),
    )


@contextmanager
def _saved(module: nn.Module) -> Iterator[dict[int, int]]:
    """Bytes that a forward pass keeps for the backward pass, by storage, without the module's parameters."""
    own = {each.untyped_storage()._cdata for each in (*module.parameters(), *module.buffers())}
    kept: dict[int, torch.Tensor] = {}
    found: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = tensor  # its address must not be used again
            found[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def _gpu_bytes(experiment: Experiment, network: _Network, measured: Measured) -> float:
    """Weights, gradients, optimizer and queue, and what the largest part of a worker's batch keeps."""
    workers, training, views = experiment.workers, experiment.training, experiment.views
    part = training.batch_size / workers.count / training.accumulate
    known = (measured.gib_per_image or {}).get((experiment.encoder.name, experiment.method.name))
    if known is not None:
        return known * part * 2**30
    trained, _ = experiment.method.passes
    trained += views.small_crops * (views.small_size / views.size) ** 2
    averages = 2 if experiment.optimizer.name == "adamw" else 1
    half = 1.0 if training.precision == "fp32" else 0.5
    return network.state_bytes + network.trained_bytes * (1 + averages) + part * trained * network.saved_bytes * half


def _core_seconds(experiment: Experiment, measured: Measured) -> float:
    """Seconds of a core for the views of one image."""
    views = experiment.views
    kind = "small_crops" if views.small_crops else "on_device" if views.photometric == "device" else "large"
    if kind == "large" and measured.images_per_core:
        return 1 / measured.images_per_core
    return CORE_SECONDS[kind] * RESIZING[views.interpolation]


def _views_bytes(experiment: Experiment) -> float:
    """Of the batches that one worker's loader makes ahead."""
    views, workers = experiment.views, experiment.workers
    image = 3 * (2 * views.size**2 + views.small_crops * views.small_size**2)
    processes = experiment.data.loader_workers
    processes = max(1, int(workers.cpus) - 1) if processes is None else max(1, processes)
    waiting = 2 + processes * max(2, min(4, 8 // processes))
    return waiting * image * experiment.training.batch_size / workers.count


def _evaluation_seconds(
    config: SweepConfig, network: _Network, measured: Measured, gpus: float, train: int, held: int
) -> float:
    """One pass over the bank and the validation images, by all workers: the slower of decoding and encoding."""
    experiment = config.experiment
    most = config.evaluate.online_bank
    passed = (train if most is None else min(train, most)) + (held or 50_000)
    cores = experiment.workers.count * experiment.workers.cpus if experiment.workers.count > 1 else config.search.cpus
    encode = passed * network.forward_flops / (measured.rate(experiment.encoder.name) * gpus)
    return max(encode, passed * CORE_SECONDS["evaluation"] / cores)


def _warnings(config: SweepConfig, found: Footprint) -> Iterator[str]:
    experiment, workers = config.experiment, config.experiment.workers
    cpus = workers.cpus if workers.count > 1 else config.search.cpus
    if experiment.data.loader == "local" and found.loader_cores > cpus - 1:
        yield (
            f"views need {found.loader_cores:.1f} cores a GPU beside the one that trains, and there are {cpus:g} in "
            "all: raise workers.cpus (search.cpus for one worker), or set views.photometric: device"
        )
    if found.gpu_gib > GPU_GIB * 0.95:
        yield (
            f"a worker's batch needs about {found.gpu_gib:.0f} GiB of a GPU's memory, more than {GPU_GIB:.0f}: raise "
            f"workers.count or training.accumulate{', or lower search.seeds' if config.search.seeds > 1 else ''}"
        )
    if found.evaluation_share > _EVALUATION_SHARE:
        yield (
            f"evaluations take {100 * found.evaluation_share:.0f} % of the time: raise evaluate.every, or lower "
            "evaluate.online_bank"
        )
    step = experiment.training.batch_size / (found.images_per_second * found.gpus)
    limit, silent = config.search.hang_minutes, max(step, found.evaluation_seconds) / 60
    if isinstance(limit, float) and silent > limit:
        yield (
            f"a step takes about {step:.1f} s and an evaluation {found.evaluation_seconds:.0f} s, and a trial is taken "
            f"to hang after {limit:g} minutes without progress: raise search.hang_minutes, or leave it out"
        )
    minutes = experiment.training.checkpoint_every * found.epoch_seconds / 60
    if minutes > 60:
        yield (
            f"{minutes / 60:.1f} h pass between checkpoints, which a lost node costs each trial: lower "
            "training.checkpoint_every"
        )


def describe(found: Footprint) -> list[tuple[str, str]]:
    """Lines for people: name and value."""
    return [
        ("GPUs", f"{found.gpus:g}"),
        ("images/s a GPU", f"{found.images_per_second:.0f}"),
        ("epoch", f"{found.epoch_seconds / 60:.1f} min"),
        ("online evaluation", f"{found.evaluation_seconds:.0f} s, {100 * found.evaluation_share:.1f} % of the time"),
        ("whole trial", f"{found.trial_hours:.0f} h, {found.trial_hours * found.gpus:.0f} GPU-hours"),
        ("memory of a GPU", f"{found.gpu_gib:.0f} GiB"),
        ("cores for views, a GPU", f"{found.loader_cores:.1f}"),
        ("views that wait, a node", f"{found.views_gib:.1f} GiB"),
        ("checkpoint", f"{found.checkpoint_mib:.0f} MiB; those that stay {found.checkpoints_gib:.0f} GiB"),
        ("images on each node", f"{found.data_gb:.0f} GB"),
    ]


def count_images(config: SweepConfig) -> int:
    """Training images before any are held out.

    Raises:
        UserError: the images cannot be opened.
    """
    from bgsweep.data import open_splits

    data = config.experiment.data
    splits = open_splits(data)
    held = len(splits.validation) if data.validation is None else 0
    return len(splits.train) + held + (len(splits.test) if data.test is None else 0)
