"""MLflow's system metrics of all nodes of a cluster, in one run: a process on each node writes its own."""

import contextlib
import platform
from collections.abc import Iterator
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bgsweep.tracking import system_metrics

_STOPPED = 20  # seconds


@contextlib.contextmanager
def log_system_metrics(address: str, run: str) -> Iterator[None]:
    """Log the system metrics of the nodes that are there now, if `system_metrics.SWITCH` is on.

    Args:
        address: MLflow tracking URI.
        run: the run's id.
    """
    if not system_metrics.wanted():
        yield
        return
    if not ray.is_initialized():
        here = system_metrics.monitor(address, run, platform.node())
        try:
            yield
        finally:
            here.finish()
        return
    actors: list[Any] = []
    for node, name in _names().items():
        options: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node, False)}
        start: Any = ray.remote(**options)(_Node)
        actors.append(start.remote(address, run, name))
    try:
        yield
    finally:
        ray.wait([actor.finish.remote() for actor in actors], num_returns=len(actors), timeout=_STOPPED)
        for actor in actors:
            ray.kill(actor)


class _Node:
    """The process on one node."""

    def __init__(self, address: str, run: str, name: str) -> None:
        self._monitor = system_metrics.monitor(address, run, name)

    def finish(self) -> None:
        self._monitor.finish()


def _names() -> dict[str, str]:
    """A name for each node by its id: its host name, with the first digits of the id where several have the same."""
    nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    hosts = list(nodes.values())
    return {node: host if hosts.count(host) == 1 else f"{host}-{node[:6]}" for node, host in nodes.items()}
