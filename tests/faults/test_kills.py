"""SIGKILL of a trial's worker, of a Ray Train rank, of a node and of the driver, one by one and at random.

The cluster is of several nodes on this host. A sweep that was disturbed must have come to what an undisturbed one has.
"""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from tests import progress
from tests.faults.clusters import cluster, kill_node, raylet
from tests.faults.sweeps import SPACE, STILL, TINY, actors, begin, ended, events, outcome, runs, told, wait_for

# Random proposals and no scheduler: with two trials at a time, who proposes and stops by results goes by their order.
SEARCH = ["search.algorithm=random", "search.scheduler=none", "search.concurrent=2", "search.max_failures=30"]
SWEEP = [str(TINY), *SPACE, *SEARCH, "search.trials=4", "training.epochs=12", "name=tiny"]
KILLS = 20


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("quiet")
    return ended(begin(folder, *SWEEP), folder)


def busy_node(made: Cluster) -> tuple[Any, psutil.Process] | None:
    """A node on which a trial trains, and the trial's process."""
    for node in made.worker_nodes:
        found = actors(raylet(node).pid)
        if found:
            return node, found[0]
    return None


def check_all_is_well(found: dict[str, Any], made: Cluster, trials: int) -> None:
    """No MLflow run is open or there twice, and no resource is held."""
    recorded = runs(found["tracking_uri"])
    assert len(recorded) == trials + 1
    assert {run.info.status for run in recorded.values()} == {"FINISHED"}
    ray.init(address=made.address, log_to_driver=False)
    try:
        progress.wait_for(
            lambda: ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"],
            ray.available_resources,
            lambda: f"held: {ray.available_resources()} of {ray.cluster_resources()}",
            every=0.5,
            still=STILL,
        )
    finally:
        ray.shutdown()


def next_result(folder: Path, process: subprocess.Popen[str]) -> Callable[[], None]:
    """Call it to wait until something new was measured."""

    def wait() -> None:
        before = len(events(folder, "result"))
        wait_for(lambda: len(events(folder, "result")) > before + 2, process, folder)

    return wait


def pause(folder: Path, seconds: float) -> None:
    """Wait, but not beyond the next result: the sweep shall not end before the last kill."""
    results, until = len(events(folder, "result")), time.monotonic() + seconds
    while time.monotonic() < until and len(events(folder, "result")) == results:
        time.sleep(0.05)


def test_a_trials_worker_a_node_and_the_driver_killed_one_after_another_change_nothing(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    with cluster(1, 1) as made:
        process = begin(tmp_path, *SWEEP, RAY_ADDRESS=made.address)
        try:
            go_on = next_result(tmp_path, process)
            go_on()
            busy = wait_for(lambda: busy_node(made), process, tmp_path)
            busy[1].kill()
            go_on()
            busy = wait_for(lambda: busy_node(made), process, tmp_path)
            kill_node(made, busy[0])
            made.add_node(num_cpus=1)
            wait_for(lambda: len(events(tmp_path, "recovered")) >= 2, process, tmp_path)
            reasons = [event["error"] for event in events(tmp_path, "recovered")]
            assert all("died" in reason or "node was terminated" in reason for reason in reasons), reasons
            process.kill()
            process.wait()
            (name,) = [folder.name for folder in (tmp_path / "bgsweep_runs/sweeps").iterdir()]
            process = begin(tmp_path, "--resume", name, RAY_ADDRESS=made.address)
            found = ended(process, tmp_path)
        finally:
            process.kill()
        assert outcome(found) == outcome(undisturbed)
        assert found["best"]["metrics"] == undisturbed["best"]["metrics"]
        assert sum(trial["failures"] for trial in found["trials"]) >= 2
        check_all_is_well(found, made, 4)


def test_a_killed_rank_and_a_killed_node_of_a_trial_on_ray_train_change_nothing(tmp_path: Path) -> None:
    # The second trial has the baseline's values: each must train, in a folder of its own.
    equal = ["space.background.remove={uniform: [0.0, 0.8]}", "space.points=[{background.remove: 0.0}]"]
    space = [*equal, "background.random=0", *SEARCH, "search.trials=2", "training.epochs=12"]
    sweep = [str(TINY), *space, "workers.count=2", "search.concurrent=1", "name=tiny"]
    (tmp_path / "quiet").mkdir()
    quiet = ended(begin(tmp_path / "quiet", *sweep), tmp_path / "quiet")
    with cluster(2, 2) as made:
        process = begin(tmp_path, *sweep, RAY_ADDRESS=made.address)
        try:
            go_on = next_result(tmp_path, process)
            go_on()
            ranks = [one for node in made.worker_nodes for one in actors(raylet(node).pid)]
            victim = next(one for one in ranks if "RayTrainWorker" in " ".join(one.cmdline()))
            victim.kill()
            go_on()
            busy = wait_for(lambda: busy_node(made), process, tmp_path)
            kill_node(made, busy[0])
            made.add_node(num_cpus=2)
            found = ended(process, tmp_path)
        finally:
            process.kill()
        assert outcome(found) == outcome(quiet)
        assert len({trial["digest"] for trial in found["trials"]}) == 1
        check_all_is_well(found, made, 2)


ON_RAY_TRAIN = ["workers.count=2", "search.concurrent=1", "search.trials=3", "training.epochs=24"]
"""Two ranks on two nodes, or on one."""


@pytest.mark.parametrize(("settings", "cpus"), [([], 1), (ON_RAY_TRAIN, 2)], ids=["one process", "two ranks"])
def test_twenty_random_kills_change_nothing(settings: list[str], cpus: int, tmp_path: Path) -> None:
    draw, sweep = random.Random(7), [*SWEEP, *settings]
    (tmp_path / "quiet").mkdir()
    undisturbed = ended(begin(tmp_path / "quiet", *sweep), tmp_path / "quiet")
    with cluster(cpus, cpus) as made:
        process = begin(tmp_path, *sweep, RAY_ADDRESS=made.address)
        killed = []
        try:
            manifest = wait_for(lambda: list(tmp_path.glob("bgsweep_runs/sweeps/*/sweep.json")), process, tmp_path)
            while len(killed) < KILLS:
                if draw.random() < 0.8:  # ranks take longer to start than the pauses: only drivers would be killed
                    wait_for(lambda: busy_node(made), process, tmp_path)
                pause(tmp_path, draw.uniform(0, 4))
                kind = draw.choices(["worker", "node", "driver"], [12, 4, 4])[0]
                busy = busy_node(made)
                assert process.poll() is None, f"ended after {killed}: {told(tmp_path)}"
                if kind == "driver":
                    process.kill()
                    process.wait()
                    process = begin(tmp_path, "--resume", manifest[0].parent.name, RAY_ADDRESS=made.address)
                elif busy is None:
                    continue  # none trains at the moment
                elif kind == "node":
                    kill_node(made, busy[0])
                    made.add_node(num_cpus=cpus)
                else:
                    os.kill(busy[1].pid, signal.SIGKILL)
                killed.append(kind)
            found = ended(process, tmp_path)
        finally:
            process.kill()
        assert set(killed) == {"worker", "node", "driver"}
        assert outcome(found) == outcome(undisturbed)
        assert found["best"]["metrics"] == undisturbed["best"]["metrics"]
        check_all_is_well(found, made, len(undisturbed["trials"]))
