"""Ray's autoscaler sees what sweeps could use: the cluster grows for each of them, and no request outlives a driver."""

from pathlib import Path
from typing import Any

import pytest
import ray
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.util import placement_group_table

from bgsweep.sweep.journal import read_journal
from tests.faults.clusters import autoscaled
from tests.faults.sweeps import SPACE, TINY, begin, ended, wait_for

SEARCH = ["search.algorithm=random", "search.scheduler=none", "workers.device=cpu"]


def most_at_once(folder: Path) -> int:
    """The largest number of trials of a folder's only sweep that have run at a time."""
    running = most = 0
    for place in folder.glob("bgsweep_runs/sweeps/*"):
        for event in read_journal(place):
            running += (event.kind == "started") - (event.kind == "ended")
            most = max(most, running)
    return most


def pending() -> list[Any]:
    return [group for group in placement_group_table().values() if group["state"] == "PENDING"]


@pytest.mark.parametrize("version", [1, 2])
def test_a_cluster_grows_for_two_sweeps_and_a_killed_one_leaves_no_request(version: int, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    by_kuberay = {"KUBERAY_GEN_RAY_START_CMD": "ray start --head --no-monitor"}
    with autoscaled(tmp_path, 3, version) as address:
        long = [*SEARCH, "search.trials=9", "training.epochs=200"]
        one = begin(first, str(TINY), *SPACE, *long, RAY_ADDRESS=address, **by_kuberay)
        wait_for(lambda: most_at_once(first) == 4, one, first)  # the head, and three nodes more
        short = [*SEARCH, "search.trials=3", "search.concurrent=2", "training.epochs=10"]
        other = begin(second, str(TINY), *SPACE, *short, RAY_ADDRESS=address)
        try:
            ray.init(address=address, log_to_driver=False)
            assert is_autoscaler_v2(fetch_from_server=True) == (version == 2)
            wait_for(pending, other, second)  # the cluster is at its limit
            one.kill()
            found = ended(other, second)
            assert not pending()
        finally:
            ray.shutdown()
            one.kill()
    assert [trial["status"] for trial in found["trials"]] == ["completed"] * 3
    assert most_at_once(second) == 2
