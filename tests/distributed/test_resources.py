"""How often a trial's bundles fit into a cluster's nodes, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from bgsweep.cli.main import main
from bgsweep.config import load
from bgsweep.distributed.resources import capacity
from bgsweep.sweep.capacity import wait_for_capacity

TINY = Path(__file__).parents[1] / "tiny.yaml"


def cpus(*counts: float) -> list[dict[str, float]]:
    return [{"CPU": count} for count in counts]


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
    ],
)
def test_trials_fit_as_often_as_their_bundles_find_nodes(nodes: list[Any], bundles: list[Any], times: int) -> None:
    assert capacity(nodes, bundles, 100) == times
    assert capacity(nodes, bundles, 1) == min(1, times)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [(["workers.device=auto"], True), ([], False), (["workers.device=auto", "search.gpus=1"], False)],
)
def test_trials_that_leave_gpus_idle_are_told(
    overrides: list[str], told: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bgsweep.sweep.capacity.wait_for_resources", lambda *_: None)
    monkeypatch.setattr("bgsweep.sweep.capacity.nodes", lambda: [*cpus(4), {"CPU": 4.0, "GPU": 2.0}])
    wait_for_capacity(load(TINY, overrides))
    assert ("search.gpus: 0 gives trials none" in capsys.readouterr().err) == told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "overrides", "told"),
    [
        ("sweep", ["space.background.remove={uniform: [0, 1]}", "search.gpus=1"], "1 x (1 CPUs, 1 GPUs) are needed"),
        ("pretrain", ["workers.count=2", "workers.gpus=1"], "2 x (1 CPUs, 1 GPUs) are needed"),
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
