"""The loop: put down and taken up it goes on bit for bit; loader workers change nothing; a broken loss is told."""

import copy
import itertools
import logging
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from bgsweep.config import Experiment, resolve
from bgsweep.data import open_splits
from bgsweep.errors import Stopped, UserError
from bgsweep.stopping import Asked, Request, nothing_asked
from bgsweep.training import Trainer, device, load_checkpoint, save_checkpoint, select_device
from bgsweep.training.schedule import cosine_with_warmup
from bgsweep.training.trainer import Diverged

TINY = [
    "data={images: sample, resize: 24, cache: true, loader_workers: 0}",
    "views={size: 16, blur: 0.5}",
    "background={remove: 0.3, random: 0.4}",
    "method={queue_size: 640, hidden_dim: 16, embedding_dim: 8, momentum: 0.9, split_bn: 2}",
    "encoder={name: resnet10, width: 4, stem: small}",
    "training={epochs: 3, batch_size: 320}",
    "workers={device: cpu}",
]


def experiment(*overrides: str) -> Experiment:
    return resolve({}, [*TINY, *overrides]).experiment


def start(*overrides: str, asked: Asked = nothing_asked) -> Trainer:
    torch.set_num_threads(1)
    wanted = experiment(*overrides)
    return Trainer(wanted, open_splits(wanted.data).train, select_device(wanted), asked=asked)


def everything(training: Trainer) -> dict[str, torch.Tensor]:
    """All tensors of the state, flat."""
    found: dict[str, torch.Tensor] = {}

    def collect(prefix: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found[prefix] = value.clone()
        elif isinstance(value, dict):
            for key, item in value.items():
                collect(f"{prefix}.{key}", item)

    collect("", training.state_dict())
    return found


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), f"{name} differs"


@pytest.mark.parametrize(
    "changes",
    [
        ["training.precision=fp32"],
        ["training.precision=bf16"],
        ["training.accumulate=2", "background.swap=0.5", "optimizer={name: adamw, lr: 0.001}"],
        ["views={size: 16, photometric: device}", "background.swap=0.5"],
        ["background.random={from: 0.9, to: 0, course: cosine}", "background.swap={from: 0, to: 0.5}"],
        ["views={size: 16, albumentations: [{ColorJitter: {}}, {GaussNoise: {}}]}", "background.swap=0.5"],
    ],
    ids=["fp32", "bf16", "parts, swaps and adamw", "colours on the device", "schedules", "albumentations"],
)
def test_interrupted_and_continued_is_bit_identical_to_uninterrupted(tmp_path: Path, changes: list[str]) -> None:
    whole = start(*changes)
    losses = [whole.step_epoch()["loss"] for _ in range(3)]

    first = start(*changes)
    broken = [first.step_epoch()["loss"]]
    save_checkpoint(tmp_path / "state.pt", first.state_dict())
    torch.rand(7)  # whatever else the process drew in between
    second = start(*changes)
    second.load_state_dict(load_checkpoint(tmp_path / "state.pt"))
    broken += [second.step_epoch()["loss"] for _ in range(2)]

    assert losses == broken
    same(everything(whole), everything(second))


BYOL = ["method={name: byol, hidden_dim: 16, embedding_dim: 8, momentum: 0.9}", "optimizer={name: lars, trust: 0.1}"]
SWAV = [
    "method={name: swav, prototypes: 12, hidden_dim: 16, embedding_dim: 8, queue_size: 160, queue_start: 0}",
    "views={size: 16, small_crops: 2, small_size: 8}",
]
DINO = [
    "method={name: dino, prototypes: 12, hidden_dim: 16, embedding_dim: 8}",
    "optimizer={name: adamw, lr: 0.001, weight_decay: {from: 0.04, to: 0.4, course: cosine}, clip_norm: 0.5}",
    "views={size: 16, small_crops: 2, small_size: 8}",
]
SIMCLR = ["method={name: simclr, hidden_dim: 16, embedding_dim: 8}", "optimizer={name: lars, trust: 0.1}"]


@pytest.mark.parametrize(
    "changes",
    [
        ["background.swap=0.5"],
        ["training.precision=bf16", "training.accumulate=2"],
        BYOL,
        SWAV,
        [*SIMCLR, "background={swap: 0.5, swap_negative: foreground}", "training.accumulate=2"],
        DINO,
        # Not in bfloat16, which `auto` takes on CPUs with AMX: two equal runs differ there in the gradient of one of
        # its depthwise convolutions (docs/failures.md).
        [
            "method={name: supervised}",
            "encoder={name: efficientnet_b0}",
            "training.batch_size=480",
            "training.precision=fp32",
        ],
    ],
    ids=[
        "moco with swaps",
        "moco in parts",
        "byol",
        "swav with queue",
        "simclr with swaps",
        "dino",
        "supervised with stochastic depth",
    ],
)
def test_stopped_within_an_epoch_and_resumed_is_bit_identical_to_uninterrupted(
    tmp_path: Path, changes: list[str]
) -> None:
    """Stopped twice: after a step of the first epoch, and after the last step but one of the second."""
    changes = ["training={epochs: 2, batch_size: 160}", *changes]
    whole = start(*changes)
    expected = [whole.step_epoch() for _ in range(2)]

    found: list[dict[str, float]] = []
    stops = [(0, 1), (1, whole.batches.steps_per_epoch - 1)]
    for place in [*stops, None]:
        part = start(*changes)
        part.stop.asked = lambda part=part, place=place: (
            Request.LEAVE if (part.epoch, part.step) == place else (Request.NOTHING)
        )
        if found or place != stops[0]:
            part.load_state_dict(load_checkpoint(tmp_path / "state.pt"))
        try:
            while part.epoch < 2:
                found.append(part.step_epoch())
        except Stopped as stopped:
            assert (stopped.epoch, stopped.step) == place
            save_checkpoint(tmp_path / "state.pt", part.state_dict())

    assert [untimed(metrics) for metrics in found] == [untimed(metrics) for metrics in expected]
    same(everything(whole), everything(part))


def untimed(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name not in ("images_per_second", "data_wait")}


def test_a_run_that_writes_a_checkpoint_within_an_epoch_can_train_on() -> None:
    """As Ray Train's workers do until their node is taken away."""
    whole, going = start("data.loader_workers=1"), start("data.loader_workers=1")
    going.stop.asked = lambda: Request.CHECKPOINT if going.step == 1 else Request.NOTHING
    with pytest.raises(Stopped) as stopped:
        going.step_epoch()
    assert not stopped.value.leave and going.state_dict()["step"] == 1
    assert untimed(going.step_epoch()) == untimed(whole.step_epoch())
    same(everything(whole), everything(going))


@pytest.mark.parametrize("color", ["exact", "fast"])
def test_colours_made_on_the_device_train_as_those_of_the_loader(color: str) -> None:
    """Same draws, pixels equal within rounding: nearly the same loss, which other draws would miss by far more."""
    losses = [
        start(
            f"views={{size: 16, color: {color}, photometric: {place}}}",
            "background.swap=0.5",
            "training.precision=fp32",
        ).step_epoch()["loss"]
        for place in ("cpu", "device")
    ]
    other = start(
        f"views={{size: 16, color: {color}, photometric: cpu, jitter_p: 0.2}}",
        "background.swap=0.5",
        "training.precision=fp32",
    ).step_epoch()["loss"]
    assert losses[0] != losses[1]
    assert abs(losses[0] - losses[1]) < 0.2 * abs(losses[0] - other)


@pytest.mark.slow
def test_loader_workers_change_nothing() -> None:
    here, elsewhere = start(), start("data.loader_workers=2")
    assert here.step_epoch()["loss"] == elsewhere.step_epoch()["loss"]
    same(
        {name: value for name, value in everything(here).items() if "experiment" not in name},
        {name: value for name, value in everything(elsewhere).items() if "experiment" not in name},
    )


def test_the_seed_decides_weights_and_views() -> None:
    first, again, other = start(), start(), start("seed=1")
    assert first.step_epoch()["loss"] == again.step_epoch()["loss"] != other.step_epoch()["loss"]


def test_shares_of_background_augmentation_are_as_configured() -> None:
    metrics = start("background={remove: 0.25, random: 0.0}").step_epoch()
    assert metrics["bg_removed"] + metrics["bg_kept"] == pytest.approx(0.25, abs=0.04)
    assert metrics["bg_replaced"] == 0
    assert start("background={remove: 0, random: 0}").step_epoch()["bg_removed"] == 0


def test_share_of_swaps_is_as_configured() -> None:
    assert start("background.swap=0.3").step_epoch()["bg_swapped"] == pytest.approx(0.3, abs=0.05)
    assert start().step_epoch()["bg_swapped"] == 0


@pytest.mark.parametrize("swap", [0.0, 0.5])
def test_gradients_of_parts_are_those_of_the_whole_batch(swap: float) -> None:
    """In eval mode, since BatchNorm's statistics would be those of the parts."""
    found = []
    for parts in (1, 4):
        training = start(f"training.accumulate={parts}", "training.precision=fp32", f"background.swap={swap}")
        training.method.eval()
        metrics = training._backward(next(iter(training.batches.epoch(0))))
        gradients = [parameter.grad for parameter in training.method.parameters() if parameter.grad is not None]
        training.method.after_step(0.0)
        queue = training.method.state_dict()["queue"][:320]
        found.append([metrics["loss"], queue[queue[:, 0].argsort()], *gradients])
    assert len(found[0]) > 20
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-5)


def test_compile_is_a_switch_on_the_encoders() -> None:
    """Compiling itself waits for the first batch."""

    def compiled(training: Trainer) -> set[str]:
        modules = training.method.named_modules()
        return {name for name, module in modules if module._compiled_call_impl is not None}

    assert compiled(start()) == set()
    assert compiled(start("training.compile=true")) == {"encoder.backbone", "key_network.0.backbone"}


def test_float16_s_scale_does_not_change_where_gradients_are_clipped() -> None:
    """A scale of a power of two, which is exact, without float16, which a CPU is not trained in."""
    plain, scaled = (start("optimizer.clip_norm=0.05", "training.epochs=1") for _ in range(2))
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    assert plain.step_epoch()["loss"] == scaled.step_epoch()["loss"]
    same(*({name: value.clone() for name, value in each.method.state_dict().items()} for each in (plain, scaled)))


def test_a_checkpoint_of_a_device_that_needs_no_scale_is_resumed_on_one_that_does() -> None:
    """As where a trial of a GPU with bfloat16 goes on on one without."""
    plain, scaled = start("training.epochs=2"), start("training.epochs=2")
    plain.step_epoch()
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    scaled.load_state_dict(copy.deepcopy(plain.state_dict()))  # as from a file
    assert scaled.scaler.get_scale() == 2.0**12
    assert plain.step_epoch()["loss"] == scaled.step_epoch()["loss"]


def test_the_linear_scaling_rule_is_written_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="bgsweep"):
        start("optimizer.lr=0.1", "training.batch_size=320")
    assert "lr 0.1 at batch size 320: by the linear scaling rule that is 0.08 at 256" in caplog.text


def test_a_checkpoint_of_another_experiment_is_refused() -> None:
    other = start("background.remove=0.31").state_dict()
    with pytest.raises(UserError, match="the checkpoint is of experiment"):
        start().load_state_dict(other)


def test_a_loss_that_is_no_number_ends_the_run_at_its_step() -> None:
    training = start("training.precision=fp32")
    with torch.no_grad():
        next(training.method.encoder.parameters()).fill_(float("nan"))
    with pytest.raises(Diverged, match="the loss is nan in epoch 1, by step 1 of 3;"):
        training.step_epoch()


def test_a_batch_larger_than_the_set_is_told() -> None:
    with pytest.raises(UserError, match="960"):
        start("training.batch_size=1280", "method.queue_size=1280")


def test_learning_rate_warms_up_and_falls_to_zero() -> None:
    rates = [cosine_with_warmup(step, 100, 10) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[10] == 1
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("flags", "encoder", "precision"),
    [
        ("avx2", "resnet18", "float32"),
        ("avx2 avx512_bf16", "resnet18", "bfloat16"),
        ("avx2 avx512_bf16", "vit_s_16", "float32"),
        ("avx2 avx512_bf16 amx_bf16", "vit_s_16", "bfloat16"),
    ],
)
def test_bfloat16_is_taken_where_it_is_faster(
    flags: str, encoder: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"flags : {flags}\n")
    monkeypatch.setattr(device, "_CPUINFO", cpuinfo)
    assert (
        select_device(experiment("workers.device=cpu", f"encoder.name={encoder}")).describe()["precision"] == precision
    )


def test_fp16_without_a_gpu_is_refused() -> None:
    wanted = experiment("training.precision=fp16")
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        select_device(wanted)


def test_a_divergence_says_its_cure_once_in_another_process() -> None:
    error = Diverged("the loss is nan in epoch 1")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_weight_decay_follows_its_schedule_step_by_step() -> None:
    training = start(
        "optimizer={name: adamw, weight_decay: {from: 0.1, to: 0.4, course: cosine}, decay_all: false}",
        "training.epochs=2",
    )
    seen: list[tuple[float, float]] = []
    step = training.optimizer.step

    def watched() -> None:
        decayed, exempt = training.optimizer.param_groups
        seen.append((decayed["weight_decay"], exempt["weight_decay"]))
        step()

    training.optimizer.step = watched
    for _ in range(2):
        training.step_epoch()
    expected = [0.1 + 0.3 * (1 - math.cos(math.pi * step / 5)) / 2 for step in range(6)]
    assert [decay for decay, _ in seen] == pytest.approx(expected) and {exempt for _, exempt in seen} == {0.0}
