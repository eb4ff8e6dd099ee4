"""One experiment, trained on Ray Train."""

import queue
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
from ray.air._internal.util import skip_exceptions
from ray.core.generated import autoscaler_pb2
from ray.train import ControllerError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

from bgsweep.config import load
from bgsweep.distributed import ray_train, train
from bgsweep.distributed.session import ray_session
from bgsweep.errors import Stopped, WorkersFailed
from bgsweep.stopping import nothing_asked
from bgsweep.training import load_checkpoint
from bgsweep.training.run import Run
from bgsweep.training.seeded_run import start
from tests.command import bgsweep
from tests.inputs import LOST_FILES

TINY = Path(__file__).parents[1] / "tiny.yaml"


@pytest.mark.slow
def test_what_ray_train_dies_of_can_be_told_by_tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Trainer:
        def fit(self) -> Any:
            raise ControllerError(WorkerGroupStartupTimeoutError(2))

    monkeypatch.setattr(ray_train, "ray_trainer", lambda *_: Trainer())
    with ray_session(2), pytest.raises(WorkersFailed, match=r"^2 workers did not start in time, 4 times") as met:
        train.train(load(TINY, ["workers.count=2"]), tmp_path, lambda *_: None)
    skip_exceptions(met.value)  # as Tune does with what a trial raises; it follows causes to their end


@pytest.mark.parametrize("seeds", [1, 2])
def test_restored_workers_report_the_epochs_of_their_checkpoint_that_are_not_known(
    seeds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their last driver left before it heard of them; Ray Train is played by one worker in this process."""
    config = load(TINY, ["workers.count=2", "training.epochs=3", "evaluate.every=2"])
    run = start(config, seeds)
    trained = [run.step_epoch() for _ in range(3)]
    run.save(tmp_path)
    reports: queue.Queue[Any] = queue.Queue()
    forward = train._forward_to(reports)
    for name, found in {
        "get_context": SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1),
        "get_checkpoint": ray.train.Checkpoint.from_directory(tmp_path),
    }.items():
        monkeypatch.setattr(ray.train, name, lambda found=found: found)
    monkeypatch.setattr(ray.train, "report", lambda told, **_: forward.after_report(None, [told], None))
    monkeypatch.setattr("bgsweep.distributed.preemption.WorkerRequests", lambda *_: nothing_asked)
    monkeypatch.setattr("bgsweep.distributed.resources.assigned_device", lambda: "cpu")
    monkeypatch.setattr("bgsweep.distributed.resources.machine_share", lambda: None)

    def told(known: int | None) -> list[tuple[dict[str, Any], Any]]:
        found: list[tuple[dict[str, Any], Any]] = []
        loop = {"config": config.model_dump(mode="json", by_alias=True), "seeds": seeds, "start": None, "stops": None}
        train._train_and_report({**loop, "pulse": None, "known": known}, [])
        reports.put(None)
        training = ray_train.RayTraining(config, tmp_path, lambda *each: found.append(each), seeds, known=known)
        training._follow(2, nothing_asked, reports, None)
        return found

    assert told(0) == [(trained[0], None), (trained[1], None), (trained[2], str(tmp_path))]
    assert told(2) == [(trained[2], str(tmp_path))]
    assert told(3) == told(None) == []


@pytest.mark.slow
def test_workers_find_images_by_a_relative_path_and_their_warnings_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    LOST_FILES["link to nowhere"](tmp_path)
    ended = bgsweep("pretrain", "mine.yaml", "workers.count=2", "workers.cpus=1", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    (view, neighbour) = (line for line in caplog.messages if line.startswith("photos/train/dress/"))
    assert "lost.jpg, which does not exist" in view and "lost.jpg, which does not exist" in neighbour
    assert "unreadable 1" in ended.stdout


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], dict[str, Any]]:
    """The losses of an undisturbed run, and its last checkpoint."""
    folder, losses = tmp_path_factory.mktemp("undisturbed") / "run", []
    with ray_session(2):
        train.train(load(TINY, SHORT), folder, lambda metrics, _: losses.append(metrics["loss"]))
    return losses, newest(folder)


SHORT = ["workers.count=2", "training={epochs: 3, batch_size: 8, checkpoint_every: 9}", "evaluate.every=3"]


def newest(folder: Path) -> dict[str, Any]:
    return load_checkpoint(max(folder.glob("checkpoint_*/state.pt")))


def assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert all(torch.equal(value, second["method"][name]) for name, value in first["method"].items())


@pytest.mark.faults
def test_workers_leave_within_an_epoch_after_their_drivers_sigterm_and_go_on_from_there(
    tmp_path: Path, undisturbed: tuple[list[float], dict[str, Any]]
) -> None:
    losses: list[float] = []

    def on_epoch(metrics: dict[str, Any], _: Any) -> None:
        losses.append(metrics["loss"])
        if len(losses) == 1:
            signal.raise_signal(signal.SIGTERM)

    config, folder = load(TINY, SHORT), tmp_path / "sweeps/one/ray_train/t00-12ab"
    with ray_session(2):
        with pytest.raises(Stopped) as stopped:
            train.train(config, folder, on_epoch)
        left = newest(folder)
        assert stopped.value.leave and (left["epoch"], left["step"]) == (stopped.value.epoch, stopped.value.step)
        train.train(config, folder, on_epoch)
    assert losses == undisturbed[0]
    assert_same(newest(folder), undisturbed[1])


@pytest.mark.faults
def test_workers_go_on_from_a_run_of_one_and_then_from_their_own(tmp_path: Path) -> None:
    """Both take the batch in two groups; the second time their own checkpoint is further than that of the one."""
    alone = Run(load(TINY, [*SHORT, "training.epochs=1", "workers.count=1", "method.split_bn=2"]))
    alone.step_epoch()
    alone.save(tmp_path / "alone")
    epochs: list[int] = []
    start = tmp_path / "alone"
    with ray_session(2):
        for length in (1, 2, 3):
            config = load(TINY, [*SHORT, "training.checkpoint_every=1", f"training.epochs={length}"])
            train.train(config, tmp_path / "run", lambda metrics, _: epochs.append(metrics["epoch"]), start=start)
    assert epochs == [1, 2, 3]  # the first is what the one had trained


@pytest.mark.faults
def test_workers_write_a_checkpoint_before_their_node_is_taken_away(
    tmp_path: Path, undisturbed: tuple[list[float], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray is told that their node goes in ten minutes; meanwhile they train on."""
    monkeypatch.setenv("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "0.1")
    losses: list[float] = []

    def on_epoch(metrics: dict[str, Any], _: Any) -> None:
        losses.append(metrics["loss"])
        if len(losses) == 1:
            gcs = ray._private.worker.global_worker.gcs_client
            reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
            node = ray.get_runtime_context().get_node_id()
            assert gcs.drain_node(node, reason, "spot", int(1000 * (time.time() + 600)))[0]

    folder = tmp_path / "run"
    with ray_session(2):
        train.train(load(TINY, SHORT), folder, on_epoch)
    assert losses == undisturbed[0]
    within, end = (load_checkpoint(path) for path in sorted(folder.glob("checkpoint_*/state.pt")))
    assert within["step"] and end["epoch"] == 3
    assert_same(end, undisturbed[1])
