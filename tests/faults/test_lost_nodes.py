"""A node that is away for longer than Ray Train waits for its workers."""

import time
from pathlib import Path

import pytest

from tests.faults.clusters import cluster, kill_node
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
    reasons = [event["reason"] for event in events(tmp_path / "lost", "waits")]
    assert reasons[0].startswith("waiting for the cluster to grow, 0.0 of 60 minutes: 2 x (1 CPUs) are needed")
    assert reasons[-1] == "" and "t00 is waiting for the cluster to grow" in told(tmp_path / "lost")
    assert all(trial["failures"] <= 1 and not trial["waiting"] for trial in found[1]["trials"])
    assert "Potential causes" not in told(tmp_path / "lost")
    tags = runs(found[1]["tracking_uri"])["t00"].data.tags
    assert tags["bgsweep.waiting"] == ""
