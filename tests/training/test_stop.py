"""Runs that are asked to stop: a process by SIGTERM, several workers by one of them."""

import math
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from bgsweep.config import resolve
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.errors import Stopped, UserError
from bgsweep.stopping import Request, leave_on_sigterm, remember_sigint
from bgsweep.training import Trainer, load_checkpoint, save_checkpoint, select_device
from bgsweep.training.trainer import Diverged
from tests.command import bgsweep

TINY = Path(__file__).parents[1] / "tiny.yaml"
MOCO = ["method={queue_size: 32, hidden_dim: 16, embedding_dim: 8, momentum: 0.9}"]
BYOL = ["method={name: byol, hidden_dim: 16, embedding_dim: 8, momentum: 0.9}", "optimizer={name: lars, trust: 0.1}"]
SWAV = [
    "method={name: swav, prototypes: 12, hidden_dim: 16, embedding_dim: 8, queue_size: 32, queue_start: 0}",
    "views={size: 16, small_crops: 2, small_size: 8}",
]
METHODS = {"moco_v2": MOCO, "byol": BYOL, "swav": SWAV}


def untimed(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if name not in ("images_per_second", "data_wait")}


def assert_same(first: Any, second: Any, at: str = "") -> None:
    """Two trees are equal bit for bit."""
    if isinstance(first, dict):
        assert first.keys() == second.keys(), at
        for name in first:
            assert_same(first[name], second[name], f"{at}.{name}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), at
    else:
        assert first == second, at


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [name if name == "moco_v2" else pytest.param(name, marks=pytest.mark.faults) for name in METHODS]
)
def test_a_process_that_gets_sigterm_leaves_within_an_epoch_and_is_resumed_bit_for_bit(
    method: str, tmp_path: Path
) -> None:
    short = ["training={epochs: 3, batch_size: 16}", "evaluate.every=3", "data.resize=16"]
    words = ["pretrain", str(TINY), *METHODS[method], *short]
    process = subprocess.Popen(
        [sys.executable, "-m", "bgsweep.cli", *words, "--store", "stopped", "--fresh"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 1/3"):
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stderr.read()
    assert process.wait(60) == 128 + signal.SIGTERM, rest
    told = re.search(r"stopped after 1 epoch and (\d+) steps?, with a checkpoint; resume with `bgsweep pretrain", rest)
    assert told and rest.rstrip().endswith("--store stopped`")  # the command without --fresh
    (path,) = tmp_path.glob("stopped/pretrain/*/state.pt")
    assert 0 < int(told[1]) == load_checkpoint(path)["step"] < 60

    resumed = bgsweep(*words, "--store", "stopped", folder=tmp_path)
    undisturbed = bgsweep(*words, "--store", "whole", folder=tmp_path)
    assert resumed.returncode == undisturbed.returncode == 0, resumed.stderr
    assert "epoch 2/3" in resumed.stderr and "epoch 1/3" not in resumed.stderr
    first, second = (
        load_checkpoint(next(tmp_path.glob(f"{name}/pretrain/*/state.pt"))) for name in ("stopped", "whole")
    )
    for state in (first, second):
        state["metrics"], state["history"] = untimed(state["metrics"]), [untimed(each) for each in state["history"]]
    assert_same(first, second)


def test_a_second_sigterm_interrupts_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with leave_on_sigterm() as asked:
        assert asked() is Request.NOTHING
        signal.raise_signal(signal.SIGTERM)
        assert asked() is Request.LEAVE
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_is_lost_on_its_way_is_remembered(request: pytest.FixtureRequest) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # processes of pytest-xdist ignore it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    class Dying:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    with remember_sigint() as interrupted:
        assert not interrupted()
        Dying()
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Images(EmbeddedSample):
    """Forty images, so that an epoch is five steps."""

    def __init__(self) -> None:
        super().__init__("train", 24)
        chosen = range(0, 960, 24)
        self._images, self._masks = [self._images[i] for i in chosen], [self._masks[i] for i in chosen]
        self.ids, self.labels = [self.ids[i] for i in chosen], self.labels[chosen]


def trainer(method: str, rank: int, *more: str) -> Trainer:
    """One worker's trainer; of two, unless `more` says otherwise."""
    torch.set_num_threads(1)
    experiment = resolve(
        {},
        [
            "encoder={name: resnet10, width: 8, stem: small}",
            "views={size: 16}",
            "training={epochs: 3, batch_size: 8, precision: fp32}",
            "data={loader_workers: 0}",
            "workers={device: cpu, count: 2}",
            *METHODS[method],
            *more,
        ],
    ).experiment
    return Trainer(experiment, Images(), select_device(experiment), rank, experiment.workers.count)


def asks_within_the_second_epoch(training: Trainer) -> Request:
    return Request.LEAVE if (training.epoch, training.step) == (1, 2) else Request.NOTHING


def work(rank: int, folder: Path) -> None:
    """Train each method undisturbed, then stopped at the request of the second worker alone, and resumed.

    Then the loss of the second worker alone is no number, and both fail at the same step.
    """
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    for method in METHODS:
        whole = trainer(method, rank)
        expected = [whole.step_epoch() for _ in range(3)]

        first = trainer(method, rank)
        if rank == 1:
            first.stop.asked = partial(asks_within_the_second_epoch, first)
        found = [first.step_epoch()]
        with pytest.raises(Stopped) as stopped:
            first.step_epoch()
        assert (stopped.value.epoch, stopped.value.step) == (1, 3)
        if rank == 0:
            save_checkpoint(folder / f"{method}.pt", first.state_dict())
            save_checkpoint(folder / f"{method} whole.pt", whole.state_dict())
            torch.save([metrics["loss"] for metrics in expected], folder / f"{method} losses.pt")
        dist.barrier()

        second = trainer(method, rank)
        second.load_state_dict(load_checkpoint(folder / f"{method}.pt"))
        found += [second.step_epoch() for _ in range(2)]
        assert_same([untimed(metrics) for metrics in found], [untimed(metrics) for metrics in expected])
        if rank == 0:  # whose BatchNorm statistics a checkpoint has
            assert_same(second.state_dict(), whole.state_dict())
    diverging = trainer("moco_v2", rank)
    if rank == 1:
        diverging.method.register_forward_hook(lambda module, views, step: replace(step, loss=step.loss * math.inf))
    with pytest.raises(Diverged, match="in epoch 1, by step 2 of 5;"):
        diverging.step_epoch()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints of two workers that were stopped, and of two that were not."""
    folder = tmp_path_factory.mktemp("stopped")
    mp.spawn(work, args=(folder,), nprocs=2)
    return folder


@pytest.mark.slow
def test_two_workers_leave_at_the_same_step_and_are_resumed_bit_for_bit(stopped: Path) -> None:
    assert [load_checkpoint(stopped / f"{method}.pt")["step"] for method in METHODS] == [3, 3, 3]


@pytest.mark.slow
def test_one_worker_goes_on_where_two_were_stopped(stopped: Path) -> None:
    """With as many groups of BatchNorm it computes what they would have computed, up to rounding."""
    one = trainer("moco_v2", 0, "workers={device: cpu, count: 1}", "method.split_bn=2")
    one.load_state_dict(load_checkpoint(stopped / "moco_v2.pt"))
    assert (one.epoch, one.step) == (1, 3)
    expected = torch.load(stopped / "moco_v2 losses.pt")[1:]
    assert [one.step_epoch()["loss"] for _ in range(2)] == pytest.approx(expected, rel=0.02)
    with pytest.raises(UserError, match=r"workers\.count: 2 before, 1 now"):
        trainer("moco_v2", 0, "workers={device: cpu, count: 1}").load_state_dict(
            load_checkpoint(stopped / "moco_v2.pt")
        )
