"""A step never makes the host wait for the device: every method and option on a fake GPU."""

import itertools
from collections.abc import Iterator
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from bgsweep.config import resolve
from bgsweep.data import open_splits
from bgsweep.models.vit import SHAPES
from bgsweep.training import Placement, Trainer
from tests.fake_gpu import GPU, fake_gpu

SMALL = [
    "data={images: sample, resize: 24, cache: true, loader_workers: 0}",
    "views={size: 16, blur: 0.5, solarize: 0.2}",
    "background={remove: 0.3, random: 0.4}",
    "encoder={name: resnet10, width: 4, stem: small}",
    "training={epochs: 3, batch_size: 16}",
    "optimizer.warmup_epochs=1",
]
MOCO = ["method={queue_size: 16, hidden_dim: 8, embedding_dim: 4, split_bn: 2}"]
BYOL = ["method={name: byol, hidden_dim: 8, embedding_dim: 4}"]
SWAV = ["method={name: swav, prototypes: 6, hidden_dim: 8, embedding_dim: 4, freeze_prototypes: 1}"]
SIMCLR = ["method={name: simclr, hidden_dim: 8, embedding_dim: 4}"]
VICREG = ["method={name: vicreg, hidden_dim: 8, embedding_dim: 4}"]
DINO = ["method={name: dino, prototypes: 6, hidden_dim: 8, embedding_dim: 4, teacher_warmup_epochs: 2}"]
CROPS = ["views.small_crops=2", "views.small_size=8"]
QUEUE = ["method.queue_size=16", "method.queue_start=0"]
SWAPS = ["background.swap=0.9"]
LARS = ["optimizer={name: lars, trust: 0.1, decay_all: false, weight_decay: 1.0e-6}"]
ADAMW = ["optimizer={name: adamw, lr: 0.001}"]
CLIPPED = ["optimizer={name: adamw, lr: 0.001, weight_decay: {from: 0.04, to: 0.4}, clip_norm: 0.5, decay_all: false}"]
VIT = ["encoder={name: vit_s_16, drop_path: 0.1, stem: imagenet, width: 64}", "views.size=32", "views.small_size=16"]
COLORS = ["views.photometric=device"]
PARTS = ["training.accumulate=2"]
SCHEDULES = ["background.random={from: 0.9, to: 0, course: cosine}", "background.swap={from: 0.2, to: 0.5}"]
CASES = {
    "moco_v2": MOCO,
    "moco_v2 symmetric": [*MOCO, "method.symmetric=true"],
    "moco_v2 swaps": [*MOCO, *SWAPS],
    "moco_v2 swaps in parts": [*MOCO, *SWAPS, *PARTS, "background.swap_form=negative_only"],
    "moco_v2 schedules": [*MOCO, *SCHEDULES],
    "moco_v2 colours": [*MOCO, *SWAPS, *COLORS],
    "moco_v2 fast colours": [*MOCO, *COLORS, "views.color=fast"],
    "moco_v2 adamw": [*MOCO, *ADAMW],
    "moco_v2 of a transformer": [*MOCO, *ADAMW, "encoder={name: vit_s_16, stem: imagenet, width: 64}", "views.size=32"],
    "byol": BYOL,
    "byol lars in parts": [*BYOL, *LARS, *PARTS],
    "byol colours": [*BYOL, *COLORS],
    "swav": SWAV,
    "swav crops and queue": [*SWAV, *CROPS, *QUEUE],
    "swav lars colours": [*SWAV, *CROPS, *QUEUE, *LARS, *COLORS, *PARTS],
    "simclr": SIMCLR,
    "simclr swaps lars colours in parts": [*SIMCLR, *SWAPS, *LARS, *COLORS, *PARTS],
    "vicreg": [*VICREG, *LARS],
    "dino of a transformer": [*DINO, *CROPS, *CLIPPED, *VIT],
    "dino colours in parts": [*DINO, *CROPS, *CLIPPED, "optimizer.clip_each=true", *COLORS, *PARTS],
    "supervised": ["method={name: supervised, label_smoothing: 0.1}"],
}
SEVERAL = {
    "moco_v2 swaps": [*MOCO, *SWAPS],
    "byol": [*BYOL, *LARS, "training.sync_bn=true"],
    "swav crops and queue": [*SWAV, *CROPS, *QUEUE, "training.sync_bn=true"],
    "simclr swaps": [*SIMCLR, *SWAPS, "training.sync_bn=true"],
    "vicreg": [*VICREG, "training.sync_bn=true"],
    "dino": [*DINO, *CROPS, *CLIPPED, "training.sync_bn=true"],
    "supervised": ["method={name: supervised}", "training.sync_bn=true"],
}


def syncs_of(
    settings: list[str], precision: torch.dtype | None = None, world_size: int = 1, steps: int = 2
) -> list[str]:
    """Lines of two steps at which the host would wait."""
    experiment = resolve({}, [*SMALL, *settings]).experiment
    with fake_gpu() as gpu:
        training = Trainer(
            experiment,
            open_splits(experiment.data).train,
            Placement(GPU, precision, torch.channels_last),
            0,
            world_size,
        )
        training.batches._loader.pin_memory = False
        for step, batch in enumerate(itertools.islice(training.batches.epoch(0), steps)):
            pinned = batch.pin_memory()
            with gpu.watched():
                training._step(pinned, step)
        return gpu.syncs


@pytest.mark.parametrize("name", CASES)
def test_no_step_waits_for_the_device(name: str) -> None:
    with patch.dict(SHAPES, {"vit_s_16": (16, 16, 2, 2)}):
        assert not syncs_of(CASES[name])


@pytest.mark.parametrize(
    ("settings", "precision"),
    [
        (MOCO, torch.bfloat16),
        (MOCO, torch.float16),
        ([*BYOL, *LARS], torch.float16),
        ([*SWAV, *CLIPPED], torch.float16),
    ],
    ids=["bf16", "fp16 and sgd", "fp16 and lars", "fp16 and adamw, clipped"],
)
def test_nor_does_reduced_precision(settings: list[str], precision: torch.dtype) -> None:
    assert not syncs_of(settings, precision)


@pytest.fixture
def two_workers() -> Iterator[None]:
    """A process group of two in which the other worker is not there."""
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    # Gloo would crash the process, looking for the other worker in a store that is not one.
    with patch("torch.distributed.new_group", lambda **_: dist.group.WORLD):
        yield
    dist.destroy_process_group()


@pytest.mark.parametrize("name", SEVERAL)
def test_nor_does_one_of_several_workers(two_workers: None, name: str) -> None:
    with patch("bgsweep.training.trainer.distribute", lambda method, _: method):  # DDP wants a real GPU
        assert not syncs_of(SEVERAL[name], world_size=2)


def test_the_fake_gpu_finds_what_makes_a_host_wait() -> None:
    with fake_gpu() as gpu, gpu.watched():
        values = torch.ones(4, device=GPU)
        host = torch.ones(4)
        bool(values.sum() > 0)
        values[0].item()
        values[values > 0]
        values.nonzero()
        values[torch.zeros(2, dtype=torch.long)]
        torch.tensor([1.0, 2.0], device=GPU)
        host.to(GPU)
        host.to(GPU, non_blocking=True)
        values.copy_(host)
        host.pin_memory().to(GPU, non_blocking=True)
    assert len(gpu.syncs) == 9, "\n".join(gpu.syncs)
    assert "test_host_syncs.py" in gpu.syncs[0] and "bool(values.sum() > 0)" in gpu.syncs[0]
