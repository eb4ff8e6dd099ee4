"""A Ray cluster of several nodes on this host: each has a raylet of its own, which can be killed."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FakeMultiNodeProvider
from ray.cluster_utils import Cluster

from tests.progress import wait_for


@contextlib.contextmanager
def cluster(*cpus: int) -> Iterator[Cluster]:
    """A head without CPUs for trials, which are never killed by it, and a node for each number."""
    with socket.socket() as probe:  # not Ray's default port, which another cluster on this host may have
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": port}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        for count in cpus:
            made.add_node(num_cpus=count)
        yield made
    finally:
        made.shutdown()


@contextlib.contextmanager
def autoscaled(folder: Path, nodes: int, version: int) -> Iterator[str]:
    """The address of a cluster with a head of one CPU, to which Ray's autoscaler adds up to ``nodes`` of one CPU each.

    Args:
        version: of the autoscaler, 1 or 2.

    Not `ray.cluster_utils.AutoscalingCluster`: it ends all other Rays of this host, and lacks a file in Ray's package.
    """
    head = "ray.head.default"
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        port, client = one.getsockname()[1], two.getsockname()[1]
    address = f"{ray.util.get_node_ip_address()}:{port}"
    lists = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
    lists += ("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files")
    config: dict[str, Any] = {
        **{name: [] for name in lists},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "auth": {},
        "cluster_name": "fake",
        "max_workers": nodes,
        "idle_timeout_minutes": 0.5,
        "upscaling_speed": 10,
        "provider": {
            "type": "external",  # "fake_multinode" has defaults in a file that Ray's package lacks
            "module": f"{FakeMultiNodeProvider.__module__}.{FakeMultiNodeProvider.__name__}",
            "gcs_address": address,
            "launch_multiple": True,
            "disable_node_updaters": True,  # they would log in by ssh
            "disable_launch_config_check": True,
        },
        "head_node_type": head,
        "available_node_types": {
            head: {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 0},
            "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": nodes},
        },
    }
    (folder / "autoscaler.yaml").write_text(json.dumps(config), encoding="utf-8")
    options = [f"--port={port}", "--num-cpus=1", f"--autoscaling-config={folder / 'autoscaler.yaml'}", "--block"]
    options += [f"--temp-dir={tempfile.mkdtemp()}", "--dashboard-port=0", f"--ray-client-server-port={client}"]
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", *options]
    settings = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "AUTOSCALER_HEARTBEAT_TIMEOUT_S": "3600"}
    if version == 2:
        named = {"RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID}
        settings |= {"RAY_enable_autoscaler_v2": "1", **named}
    with (folder / "head").open("w", encoding="utf-8") as log:
        started = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **settings})
    told = (folder / "head").read_text
    try:
        wait_for(lambda: "Ray runtime started" in told(), told, told, started)
        yield address
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(started.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        started.kill()
        started.wait()


def kill_node(made: Cluster, node: Any) -> None:
    """SIGKILL a node's raylet; its workers notice that and end."""
    os.kill(raylet(node).pid, 9)
    made.worker_nodes.discard(node)


def raylet(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)
