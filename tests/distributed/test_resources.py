"""Counting the trials whose bundles fit into a cluster's nodes, and refusing those that cannot fit."""

import math
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util import placement_group_table

from bgsweep.cli.main import main
from bgsweep.config import load
from bgsweep.config.resuming import decisive
from bgsweep.distributed.bundles import reserve, task_options
from bgsweep.distributed.resources import assigned_device, capacity, gpus_of_process, nodes, unused_nodes
from bgsweep.distributed.train import one_worker, ray_trainer
from bgsweep.errors import UserError
from bgsweep.sweep.capacity import bundles_of_trial, trials_that_fit, wait_for_capacity
from bgsweep.sweep.cost import plan
from bgsweep.sweep.trial import trainable
from tests.faults.clusters import cluster

TINY = Path(__file__).parents[1] / "tiny.yaml"


def cpus(*counts: float) -> list[dict[str, float]]:
    return [{"CPU": count} for count in counts]


A100, ZONE = "accelerator_type:A100", "label:zone=b"


@pytest.mark.parametrize(
    ("nodes", "bundles", "times"),
    [
        (cpus(4, 4), cpus(2), 4),
        (cpus(3, 3), cpus(2), 2),  # a core of each is left over
        (cpus(1, 1), cpus(2), 0),  # two cores, but no node with both
        (cpus(8), cpus(1, 1, 1, 0.01), 2),
        (cpus(2), cpus(1, 1, 0.01), 0),  # no capacity for what waits for the workers
        (cpus(2, 4), cpus(1, 4), 1),  # the large one first
        ([{"CPU": 8.0, "GPU": 1.0}], [{"CPU": 1.0, "GPU": 0.25}], 4),
        ([{"CPU": 40.0, "GPU": 3.0}], [{"CPU": 1.0, "GPU": 0.3}], 9),  # three on each GPU
        ([{"CPU": 40.0, "GPU": 3.0}], [{"CPU": 1.0, "GPU": 0.6}], 3),
        ([{"CPU": 8.0}, {"CPU": 1.0, "GPU": 4.0}], [{"CPU": 2.0, "GPU": 1.0}], 0),  # the GPUs' node lacks cores
        ([{"CPU": 2.0, "GPU": 2.0}, {"CPU": 4.0}], [{"CPU": 1.0, "GPU": 1.0}, *cpus(1, 1)], 2),  # those without GPUs
        ([{"CPU": 8.0, "memory": 20e9}], [{"CPU": 1.0, "memory": 6e9}], 3),
        ([{"CPU": 8.0, "GPU": 8.0}, {"CPU": 8.0, "GPU": 2.0, A100: 1.0}], [{"CPU": 1.0, "GPU": 1.0, A100: 0.001}], 2),
        ([{"CPU": 8.0}, {"CPU": 3.0, ZONE: math.inf}], [{"CPU": 1.0, ZONE: 1.0}], 3),
        ([{"CPU": 1.0, ZONE: math.inf}, {"CPU": 8.0}], [{"CPU": 1.0, ZONE: 1.0}, *cpus(1)], 1),
    ],
)
def test_trials_fit_as_often_as_their_bundles_find_nodes(nodes: list[Any], bundles: list[Any], times: int) -> None:
    assert capacity(nodes, bundles, 100) == times
    assert capacity(nodes, bundles, 1) == min(1, times)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [(["workers.device=auto", "search.gpus=0"], True), ([], False), (["workers.device=auto"], False)],
)
def test_trials_that_leave_gpus_idle_are_told(
    overrides: list[str], told: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bgsweep.sweep.capacity.wait_for_resources", lambda *_: None)
    for module in ("sweep.capacity", "distributed.resources"):
        monkeypatch.setattr(f"bgsweep.{module}.nodes", lambda: [*cpus(4), {"CPU": 4.0, "GPU": 2.0}])
    wait_for_capacity(load(TINY, overrides))
    assert ("search.gpus: 0 gives trials none" in capsys.readouterr().err) == told


GPUS = [  # settings, whether the cluster has GPUs, and those of each process
    (["workers.device=cpu", "search.gpus=1"], True, 0),
    (["workers.device=cuda"], False, 1),
    (["workers.device=auto"], True, 1),
    (["workers.device=auto"], False, 0),
    (["workers.device=auto", "search.gpus=0"], True, 0),
    (["workers.device=cuda", "search.gpus=0.25"], True, 0.25),
    (["workers.device=cuda", "search.gpus=0.25", "workers.count=2"], True, 1),
    (["workers.device=auto", "workers.gpus=2", "workers.count=2"], True, 2),
]


@pytest.mark.parametrize(("overrides", "available", "gpus"), GPUS)
def test_gpus_follow_from_the_device_everywhere(
    overrides: list[str], available: bool, gpus: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = [*cpus(64), *([{"CPU": 64.0, "GPU": 8.0}] if available else [])]
    monkeypatch.setattr("bgsweep.distributed.resources.nodes", lambda: there)
    config = load(TINY, [*overrides, "search.trials=64"])
    assert config.gpus_of_process(available) == gpus_of_process(config) == gpus
    count = config.experiment.workers.count
    assert sum(bundle.get("GPU", 0) for bundle in bundles_of_trial(config)) == count * gpus
    if gpus:
        assert plan(config, 8, None, epoch_seconds=1.0)["at_once"] == 8 / (count * gpus)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["workers.device=cuda", "workers.count=2", "workers.gpus=0"], "workers.gpus: 0 gives workers no GPU"),
        (
            ["workers.device=auto", "workers.count=2", "workers.gpus=0.5"],
            "several workers on one GPU, which NCCL refuses",
        ),
        (["workers.accelerator_type=A100", "workers.device=cpu"], "device is cpu, which uses none"),
        (["workers.labels=['zone=!a']"], "workers.labels"),
        (["workers.gpus=1.5"], "1.5 GPUs cannot be assigned"),
        (["search.gpus=2.5"], "2.5 GPUs cannot be assigned"),
    ],
)
def test_gpus_that_cannot_be_given_are_refused(overrides: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        load(TINY, overrides)


WANTED = ["workers.accelerator_type=A100", "workers.labels=[zone=b]", "workers.memory_gb=2", "workers.device=auto"]


@pytest.mark.parametrize("count", [1, 2])
def test_accelerators_labels_and_memory_go_with_each_process_that_trains(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = [{"CPU": 64.0, "GPU": 8.0, A100: 1.0, "memory": 64e9, ZONE: math.inf}, *cpus(64)]
    monkeypatch.setattr("bgsweep.distributed.resources.nodes", lambda: there)
    config = load(TINY, [*WANTED, f"workers.count={count}", "search.cpus=3", "workers.cpus=3"])
    wanted = {"CPU": 3.0, "GPU": 1.0, "memory": 2e9, A100: 0.001, ZONE: 1.0}
    assert bundles_of_trial(config) == [wanted] * count + [{"CPU": 0.01}] * (count > 1)
    assert task_options(wanted) == {
        "num_cpus": 3.0,
        "num_gpus": 1.0,
        "memory": 2e9,
        "resources": {A100: 0.001},
        "label_selector": {"zone": "b"},
    }
    scaling = ray_trainer(config, config.experiment.workers.count, "folder/name", None, {}).scaling_config
    assert scaling.label_selector == {"zone": "b"}  # type: ignore[attr-defined]
    assert scaling._resources_per_worker_not_none == {"CPU": 3.0, "GPU": 1.0, "memory": 2e9, A100: 0.001}
    # Where a run runs is no part of what it computes.
    plain = load(TINY, ["workers.device=auto", f"workers.count={count}", "workers.cpus=3"])
    assert plain.experiment.digest == config.experiment.digest
    assert not decisive(plain.experiment, config.experiment)


def test_what_the_nodes_lack_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [{"CPU": 8.0, "GPU": 4.0, "memory": 64e9}, {"CPU": 8.0, "memory": 1e9, ZONE: math.inf}]
    monkeypatch.setattr("bgsweep.distributed.resources.nodes", lambda: there)
    monkeypatch.setattr("bgsweep.sweep.capacity.nodes", lambda: there)
    with pytest.raises(UserError) as refused:
        wait_for_capacity(load(TINY, WANTED))
    assert str(refused.value).startswith(
        "1 x (1 CPUs, 1 GPUs, A100, zone=b, 2 GB of memory) are needed, and the Ray cluster has nodes of "
        "1 x (8 CPUs, 4 GPUs, 64 GB of memory), 1 x (8 CPUs, zone=b, 1 GB of memory); lower search.cpus or search.gpus"
        ", change workers.accelerator_type, workers.labels or workers.memory_gb, "
    )


@pytest.mark.slow
def test_ray_places_what_is_asked_of_a_node_there(tmp_path: Path) -> None:
    config = load(TINY, ["workers.labels=[zone=b]", "workers.memory_gb=0.1"])
    with cluster(4) as made:
        made.add_node(num_cpus=1, labels={"zone": "b"})
        ray.init(address=made.address, log_to_driver=False)
        try:
            assert trials_that_fit(config) == 1
            (labelled,) = [node["NodeID"] for node in ray.nodes() if node["Labels"].get("zone") == "b"]
            task = ray.remote(**task_options(one_worker(config)))(node_here)
            assert ray.get([task.remote() for _ in range(3)]) == [labelled] * 3
            request = trainable(config, tmp_path, ("", "")).default_resource_request({})
            groups = [reserve([one_worker(config)], "one"), request.to_placement_group()]
            states = [group.wait(5) for group in groups]
            assert sorted(states) == [False, True]  # the node has one core
            (placed,) = [placement_group_table(groups[states.index(True)])]
            assert set(placed["bundles_to_node_id"].values()) == {labelled}
        finally:
            ray.shutdown()


@pytest.mark.slow
def test_what_others_use_is_not_unused() -> None:
    ray.init(address="local", num_cpus=4, labels={"zone": "b"}, include_dashboard=False, log_to_driver=False)
    try:
        group = reserve(cpus(3), "others")
        assert group.wait(30)
        deadline = time.monotonic() + 30  # the cluster knows of it a moment later
        while (left := unused_nodes()[0])["CPU"] != 1 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert (left["CPU"], left[ZONE], nodes()[0]["CPU"]) == (1, math.inf, 4)
    finally:
        ray.shutdown()


def node_here() -> str:
    return str(ray.get_runtime_context().get_node_id())


@pytest.mark.parametrize(
    ("ids", "visible", "device"),
    [
        ([], "", "cpu"),
        ([3], "3", "cuda:0"),  # a trial's actor sees its own GPU only
        ([2], "0,1,2,3", "cuda:2"),  # a worker of Ray Train sees its neighbours' too
        ([2, 3], "0,1,2,3", "cuda:2"),
        (["GPU-b"], "GPU-a,GPU-b", "cuda:1"),
        ([1], "", "cuda:1"),
    ],
)
def test_a_process_computes_on_what_ray_assigned_to_it(
    ids: list[Any], visible: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.get_gpu_ids", lambda: ids)
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert assigned_device() == device


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "overrides", "told"),
    [
        (
            "sweep",
            ["space.background.remove={uniform: [0, 1]}", "workers.device=cuda"],
            "1 x (1 CPUs, 1 GPUs) are needed",
        ),
        ("pretrain", ["workers.count=2", "workers.device=cuda"], "2 x (1 CPUs, 1 GPUs) are needed"),
    ],
)
def test_what_the_cluster_can_never_give_is_refused_at_once(
    command: str, overrides: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main([command, str(TINY), *overrides, "--store", str(tmp_path)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: {told}, and the Ray cluster has nodes of 1 x (")
    assert f"; lower {'search.cpus or search.gpus' if command == 'sweep' else 'workers.count'}" in last


def device_seen(seconds: float) -> tuple[list[int], str]:
    """The GPUs that Ray assigned to a task, which holds them for a while, and the device that a trial would take."""
    time.sleep(seconds)
    return [int(gpu) for gpu in ray.get_gpu_ids()], assigned_device()


@pytest.mark.slow
@pytest.mark.parametrize(("overrides", "at_once", "on_each"), [([], 4, 1), (["search.gpus=0.5"], 8, 2)])
def test_trials_are_spread_over_gpus(
    overrides: list[str], at_once: int, on_each: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = load(TINY, ["workers.device=cuda", *overrides])
    ray.init(address="local", num_cpus=64, num_gpus=4, include_dashboard=False, log_to_driver=False)
    try:
        assert trials_that_fit(config) == at_once  # not 64
        (bundle,) = trainable(config, tmp_path, ("", "")).default_resource_request({}).bundles
        task = ray.remote(num_cpus=bundle["CPU"], num_gpus=bundle["GPU"])(device_seen)
        found = ray.get([task.remote(3) for _ in range(at_once)])
    finally:
        ray.shutdown()
    assert Counter(gpu for (gpu,), _ in found) == dict.fromkeys(range(4), on_each)
    assert {device for _, device in found} == {"cuda:0"}  # each sees its own GPU only
