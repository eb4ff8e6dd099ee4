"""Capacity of a Ray cluster: waiting for it to grow, and how many trials fit at once."""

import contextlib
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from bgsweep.addresses import ray_address
from bgsweep.config import SweepConfig
from bgsweep.data.cores import usable_cores
from bgsweep.distributed.bundles import ACCELERATOR, LABEL, Resources
from bgsweep.distributed.demand import Demand
from bgsweep.errors import UserError

_AUTOSCALER_MINUTES = 15.0
_ASK_EVERY, _TELL_EVERY = 2.0, 30.0  # seconds
_SLACK = 1e-6


def say(line: str) -> None:
    """Show a line on stderr at once."""
    print(line, file=sys.stderr, flush=True)


def wait_for_resources(
    bundles: Sequence[Resources],
    setting: str,
    minutes: float | None = None,
    tell: Callable[[str], None] = lambda line: None,
    times: int = 1,
    unused: bool = False,
    wait_key: str | None = "search.wait_minutes",
) -> None:
    """Return once the cluster has capacity for all bundles at once.

    Args:
        setting: the keys that the user may lower, for the message.
        minutes: time to wait for more nodes; None: 15 where Ray's cluster launcher scales the cluster, else 0.
        tell: called with a line every 30 s while waiting.
        times: how many times the bundles are requested from an autoscaler; the function returns when they fit once.
        unused: only what nobody uses is capacity.
        wait_key: the key that sets the minutes, if there is one, for the message.

    Raises:
        UserError: the cluster does not have the capacity, or not in time.
    """
    # Checked before anything starts: Ray retries an infeasible request for ever, without a message that reaches the
    # user.
    limit = minutes if minutes is not None else _AUTOSCALER_MINUTES if _autoscales() else 0.0
    began, told = time.monotonic(), -_TELL_EVERY
    with contextlib.closing(Demand(bundles)) as demand:
        while not capacity(there := unused_nodes() if unused else nodes(), bundles, 1):
            demand.ask(times if limit else 0, len(there))
            gone = time.monotonic() - began
            has = "what others leave of the Ray cluster is" if unused else "the Ray cluster has nodes of"
            missing = f"{_words(bundles)} are needed, and {has} {_shapes(there, bundles)}"
            if gone >= 60 * limit:
                waited = f" after {limit:g} minutes of waiting" if limit else ""
                special = ", change workers.accelerator_type, workers.labels or workers.memory_gb"
                cure = setting + (special if _special(bundles) else "")
                longer = f", or, where the cluster grows by itself, raise {wait_key}" if wait_key else ""
                raise UserError(f"{missing}{waited}; lower {cure}, start more or larger nodes{longer}")
            if gone - told >= _TELL_EVERY:
                told = gone
                awaited = "others to leave room or the cluster to grow" if unused else "the cluster to grow"
                tell(f"waiting for {awaited}, {gone / 60:.1f} of {limit:g} minutes: {missing}")
            time.sleep(_ASK_EVERY)


def check_cores(cpus: float, key: str) -> None:
    """Refuse a process with more cores than this machine has, where Ray starts on this machine.

    Ray would accept any number, and each process would start as many threads.

    Raises:
        UserError: the machine has fewer cores.
    """
    if cpus > usable_cores() and ray_address() is None and not ray.is_initialized():
        raise UserError(
            f"{key}: {cpus:g} cores are more than the {usable_cores()} of this machine; lower it, or name a cluster by "
            "RAY_ADDRESS"
        )


def machine_share() -> float:
    """The part of this node, 0 to 1, that is this Ray task's or actor's by its CPUs or its GPUs, whichever is more."""
    if not ray.is_initialized():  # asking would start a Ray of its own
        return 1.0
    here = ray.get_runtime_context()
    node: Resources = next((node["Resources"] for node in ray.nodes() if node["NodeID"] == here.get_node_id()), {})
    own = here.get_assigned_resources()
    shares = [own.get(kind, 0) / node[kind] for kind in ("CPU", "GPU") if node.get(kind)]
    return min(1.0, max(shares, default=1.0))


def gpus_of_process(config: SweepConfig) -> float:
    """GPUs of each process that trains, on the cluster that this process has joined."""
    asks = config.experiment.workers.device == "auto"
    return config.gpus_of_process(asks and any(node.get("GPU") for node in nodes()))


def assigned_device() -> str:
    """The device that Ray assigned to this process: `cpu`, or `cuda:N` for the first of its GPUs.

    CUDA counts the GPUs that the process may see. On Ray Train these are all of its node's workers' GPUs, so that the
    number is not that of the worker.
    """
    ids = [str(gpu) for gpu in ray.get_gpu_ids()] if ray.is_initialized() else []  # it would start a Ray of its own
    visible = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    return f"cuda:{min(visible.index(gpu) if gpu in visible else int(gpu) for gpu in ids)}" if ids else "cpu"


def nodes() -> list[Resources]:
    """The total resources and the labels of each living node, used or not."""
    return [node["Resources"] | _labels(node) for node in ray.nodes() if node["Alive"]]


def unused_nodes() -> list[Resources]:
    """The resources of each living node that nobody uses, and its labels."""
    # `ray.available_resources` adds up all nodes, and two halves of a GPU on two nodes are room for nobody.
    left = ray._private.state.available_resources_per_node()
    return [left.get(node["NodeID"], {}) | _labels(node) for node in ray.nodes() if node["Alive"]]


def _labels(node: Mapping[str, Any]) -> dict[str, float]:
    return {f"{LABEL}{key}={value}": math.inf for key, value in node["Labels"].items()}


def capacity(nodes: Sequence[Resources], bundles: Sequence[Resources], most: int) -> int:
    """The number of times, up to ``most``, that all bundles fit into the nodes at once; each bundle lies on one node.

    As in Ray, large bundles are placed first, and bundles without GPUs go to nodes without GPUs while these have
    capacity. A share of a GPU lies on one GPU: three of 0.3 fit, not ten on three.
    """
    kinds = {"CPU", "GPU"}.union(*bundles)
    free = [{kind: node.get(kind, 0.0) for kind in kinds} for node in nodes]
    # Nodes without GPUs first, so that a CPU bundle does not take a GPU node's cores from the bundles that need them.
    free.sort(key=lambda node: node["GPU"])
    wanted = sorted(map(_whole_shares, bundles), key=lambda bundle: (-bundle["GPU"], -bundle["CPU"]))
    for count in range(most):
        for bundle in wanted:
            fitting = next((node for node in free if all(node[key] + _SLACK >= bundle[key] for key in bundle)), None)
            if fitting is None:
                return count
            for key in bundle:
                fitting[key] -= bundle[key]
    return most


def _whole_shares(bundle: Resources) -> dict[str, float]:
    gpus = bundle.get("GPU", 0.0)
    whole = 1 / int(1 / gpus + _SLACK) if 0 < gpus < 1 else gpus
    return {"CPU": 0.0, **bundle, "GPU": whole}


def grows_on_demand(minutes: float | None) -> bool:
    """True if a cluster may get more nodes: it does so by itself, or the user gave minutes to wait for it."""
    return _autoscales() if minutes is None else minutes > 0


def _autoscales() -> bool:
    """True on the head of a cluster that grows on demand: made by Ray's launcher, or by KubeRay.

    Tune checks the same file. KubeRay, whose autoscaler runs beside the head, starts that without a monitor.
    """
    kuberay = "--no-monitor" in os.environ.get("KUBERAY_GEN_RAY_START_CMD", "")
    return kuberay or Path("~/ray_bootstrap_config.yaml").expanduser().exists()


def _words(bundles: Sequence[Resources]) -> str:
    """E.g. `2 x (4 CPUs, 1 GPUs, A100)`; bundles too small to matter are left out."""
    matter = [bundle for bundle in bundles if max(bundle.get("CPU", 0.0), bundle.get("GPU", 0.0)) >= 0.1]
    return " and ".join(_counted(matter, _special(bundles)))


def _shapes(there: Sequence[Resources], bundles: Sequence[Resources]) -> str:
    """The nodes, as far as bundles ask of them."""
    return ", ".join(sorted(_counted(there, _special(bundles))))


def _special(bundles: Sequence[Resources]) -> list[str]:
    return sorted(set().union(*bundles) - {"CPU", "GPU"})


def _counted(found: Iterable[Resources], special: Sequence[str]) -> list[str]:
    return [f"{count} x ({shape})" for shape, count in Counter(_shape(one, special) for one in found).items()]


def _shape(one: Resources, special: Sequence[str]) -> str:
    parts = [f"{one.get('CPU', 0.0):g} CPUs"] + ([f"{one['GPU']:g} GPUs"] if one.get("GPU") else [])
    for key in special:
        if one.get(key):
            memory = f"{one[key] / 1e9:.3g} GB of memory"
            parts.append(memory if key == "memory" else key.removeprefix(LABEL).removeprefix(ACCELERATOR))
    return ", ".join(parts)
