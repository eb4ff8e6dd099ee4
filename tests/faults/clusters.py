"""A Ray cluster of several nodes on this host: each has a raylet of its own, which can be killed."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import psutil
from ray.cluster_utils import Cluster


@contextlib.contextmanager
def cluster(*cpus: int) -> Iterator[Cluster]:
    """A head without CPUs for trials, which are never killed by it, and a node for each number."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": True})
    try:
        for count in cpus:
            made.add_node(num_cpus=count)
        yield made
    finally:
        made.shutdown()


def kill_node(made: Cluster, node: Any) -> None:
    """SIGKILL a node's raylet; its workers notice that and end."""
    os.kill(raylet(node).pid, 9)
    made.worker_nodes.discard(node)


def raylet(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)
