"""A cluster that is too small: refused, or waited for until a node comes."""

from pathlib import Path

from tests.faults.clusters import cluster
from tests.faults.sweeps import SPACE, TINY, begin, ended, refused, told, wait_for

SEARCH = ["search.cpus=2", "search.trials=2", "search.scheduler=none", "training.epochs=1"]


def test_a_trial_that_fits_no_node_is_refused_and_one_that_a_new_node_takes_is_waited_for(tmp_path: Path) -> None:
    with cluster(1, 1) as made:
        process = begin(tmp_path, str(TINY), *SPACE, *SEARCH, RAY_ADDRESS=made.address)
        need = "error: 1 x (2 CPUs) are needed, and the Ray cluster has nodes of 1 x (0 CPUs), 2 x (1 CPUs)"
        assert refused(process, tmp_path).startswith(f"{need}; lower search.cpus")
        settings = [*SPACE, *SEARCH, "search.wait_minutes=0.05"]
        process = begin(tmp_path, str(TINY), *settings, RAY_ADDRESS=made.address)
        assert " after 0.05 minutes of waiting; lower" in refused(process, tmp_path)

        process = begin(tmp_path, str(TINY), *SPACE, *SEARCH, "search.wait_minutes=15", RAY_ADDRESS=made.address)
        wait_for(lambda: "waiting for the cluster to grow, 0.0 of 15 minutes" in told(tmp_path), process, tmp_path)
        made.add_node(num_cpus=2)
        found = ended(process, tmp_path)
    assert [trial["status"] for trial in found["trials"]] == ["completed", "completed"]
