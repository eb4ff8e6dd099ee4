"""A node that is away for longer than Ray Train waits for its workers."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from bgsweep.config import load
from bgsweep.distributed import ray_train, train
from bgsweep.distributed.session import ray_session
from bgsweep.training import load_checkpoint
from tests.faults.clusters import cluster, kill_node, raylet
from tests.faults.sweeps import SPACE, TINY, begin, ended, events, outcome, runs, told, wait_for

LENGTH = ["training={epochs: 4, batch_size: 16}", "search.trials=2", "search.scheduler=none", "search.concurrent=1"]
SWEEP = [str(TINY), *SPACE, *LENGTH, "workers.count=2", "register.name=tiny", "name=tiny"]


def test_a_trial_on_ray_train_waits_for_a_lost_node_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "5")  # four of these would have failed it
    found = []
    for name in ("quiet", "lost"):
        folder = tmp_path / name
        folder.mkdir()
        with cluster(1, 1, 1) as made:
            process = begin(folder, *SWEEP, RAY_ADDRESS=made.address)
            if name == "lost":
                wait_for(lambda folder=folder: events(folder, "result"), process, folder)
                for node in list(made.worker_nodes)[:2]:  # of three, which have room for a trial and its actor
                    kill_node(made, node)
                wait_for(lambda folder=folder: events(folder, "waits"), process, folder)
                time.sleep(40)
                assert process.poll() is None, told(folder)
                for _ in range(2):
                    made.add_node(num_cpus=1)
            found.append(ended(process, folder))
    assert outcome(found[1]) == outcome(found[0])
    waits = events(tmp_path / "lost", "waits")
    reasons = [event["reason"] for event in waits]
    assert reasons[0].startswith("waiting for the cluster to grow, 0.0 of 60 minutes: 2 x (1 CPUs) are needed")
    assert reasons[-1] == "" and f"{waits[0]['id']} is waiting for the cluster to grow" in told(tmp_path / "lost")
    assert all(trial["failures"] <= 1 and not trial["waiting"] for trial in found[1]["trials"])
    assert "Potential causes" not in told(tmp_path / "lost")
    tags = runs(found[1]["tracking_uri"])[waits[0]["id"]].data.tags
    assert tags["bgsweep.waiting"] == ""


def test_a_run_goes_on_with_fewer_workers_waits_for_the_cluster_and_ends_as_one_undisturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two nodes first one is lost, then the other; both come back after longer than Ray Train would wait."""
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "3")
    monkeypatch.setattr(ray_train, "_GROW_EVERY", 5.0)
    short = ["workers={device: cpu, count: 2, min_count: 1}", "training={epochs: 7, batch_size: 64}"]
    config = load(TINY, [*short, "evaluate.every=7", "search.wait_minutes=10"])
    found: dict[str, list[Any]] = {"quiet": [], "disturbed": []}
    with ray_session(2):
        train.train(config, tmp_path / "quiet", lambda metrics, _: found["quiet"].append(metrics))
    with cluster(1, 1) as made:
        monkeypatch.setenv("RAY_ADDRESS", made.address)
        lost: list[float] = []
        counts: list[int] = []

        def on_epoch(metrics: dict[str, Any], _: Any) -> None:
            found["disturbed"].append(metrics)
            if not lost or (len(lost) == 1 and counts[-1] == 1):  # after an epoch by two, and after one by one
                node = next(iter(made.worker_nodes))
                processes = raylet(node).children(recursive=True)
                kill_node(made, node)
                for process in processes:  # would notice it only after some more epochs
                    process.kill()
                lost.append(time.monotonic())

        def tell(line: str, **_: Any) -> None:
            if len(made.worker_nodes) == 0 and "waiting" in line and time.monotonic() - lost[-1] > 20:
                made.add_node(num_cpus=1)
                made.add_node(num_cpus=1)

        make = ray_train.ray_trainer
        monkeypatch.setattr(ray_train, "ray_trainer", lambda *a: counts.append(a[1]) or make(*a))

        monkeypatch.setattr(ray_train, "print", tell, raising=False)
        monkeypatch.setattr("bgsweep.distributed.resources._TELL_EVERY", 2.0)
        with ray_session(2):
            train.train(config, tmp_path / "disturbed", on_epoch)
    assert len(lost) == 2, "it did not lose both"
    assert counts[0] == 2 and 1 in counts and counts[-1] == 2, counts  # more of them where Ray sees a loss late
    assert [metrics["epoch"] for metrics in found["disturbed"]] == [1, 2, 3, 4, 5, 6, 7]
    assert [each["loss"] for each in found["disturbed"]] == pytest.approx(
        [each["loss"] for each in found["quiet"]], rel=0.02
    )
    states = [load_checkpoint(max((tmp_path / name).glob("checkpoint_*/state.pt"))) for name in found]
    assert all(torch.isfinite(value).all() for value in states[1]["method"].values())
    assert states[0]["epoch"] == states[1]["epoch"] == 7
