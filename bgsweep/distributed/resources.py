"""Whether the cluster can ever give what is asked for, how often at a time, and waiting for one that grows."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import ray

from bgsweep.addresses import ray_address
from bgsweep.data.cores import usable_cores
from bgsweep.errors import UserError

Resources = Mapping[str, float]
"""How many CPUs and GPUs; as a bundle, all of them on one node."""

_AUTOSCALER_MINUTES = 15.0
_ASK_EVERY, _TELL_EVERY = 2.0, 30.0  # seconds
_SLACK = 1e-6


def wait_for_resources(
    bundles: Sequence[Resources],
    cure: str,
    minutes: float | None = None,
    tell: Callable[[str], None] = lambda line: None,
    times: int = 1,
) -> None:
    """Return once the cluster has capacity for all bundles at once.

    Args:
        cure: what the user may lower, for the message.
        minutes: how long to wait for more nodes; None: 15 where Ray's cluster launcher scales the cluster, else not.
        tell: is given a line now and then while waiting.
        times: how often an autoscaler is asked for the bundles, of which one is waited for.

    Raises:
        UserError: the cluster has no such capacity, and will not have it or has not got it in time.
    """
    limit = minutes if minutes is not None else _AUTOSCALER_MINUTES if _autoscales() else 0.0
    began, told = time.monotonic(), -_TELL_EVERY
    with _requested(bundles, times) if limit else contextlib.nullcontext():
        while not capacity(nodes(), bundles, 1):
            gone = time.monotonic() - began
            missing = f"{_words(bundles)} are needed, and the Ray cluster has {_shapes()}"
            if gone >= 60 * limit:
                waited = f" after {limit:g} minutes of waiting" if limit else ""
                raise UserError(
                    f"{missing}{waited}; lower {cure}, start more or larger nodes, or, where the cluster grows by "
                    "itself, let search.wait_minutes be longer"
                )
            if gone - told >= _TELL_EVERY:
                told = gone
                tell(f"waiting for the cluster to grow, {gone / 60:.1f} of {limit:g} minutes: {missing}")
            time.sleep(_ASK_EVERY)


def check_cores(cpus: float, key: str) -> None:
    """Refuse a process of more cores than this machine has, where Ray starts here.

    Ray would take any number for granted, and each process as many threads.

    Raises:
        UserError: it has fewer.
    """
    if cpus > usable_cores() and ray_address() is None:
        raise UserError(
            f"{key}: {cpus:g} cores are more than the {usable_cores()} of this machine; lower it, or name a cluster by "
            "RAY_ADDRESS"
        )


def nodes() -> list[Resources]:
    """What each living node has in all, whoever uses it now."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def capacity(nodes: Sequence[Resources], bundles: Sequence[Resources], most: int) -> int:
    """How many times all the bundles fit into the nodes at once, up to ``most``; each bundle lies on one node.

    As in Ray, large bundles are placed first, and bundles without GPUs go to nodes without GPUs while these have
    capacity. A share of a GPU lies on one GPU: three of 0.3 fit, not ten on three.
    """
    free = [{"CPU": node.get("CPU", 0.0), "GPU": node.get("GPU", 0.0)} for node in nodes]
    free.sort(key=lambda node: node["GPU"])
    wanted = sorted(map(_whole_shares, bundles), key=lambda bundle: (-bundle["GPU"], -bundle["CPU"]))
    for count in range(most):
        for bundle in wanted:
            place = next((node for node in free if all(node[key] + _SLACK >= bundle[key] for key in node)), None)
            if place is None:
                return count
            for key in place:
                place[key] -= bundle[key]
    return most


def _whole_shares(bundle: Resources) -> dict[str, float]:
    gpus = bundle.get("GPU", 0.0)
    return {"CPU": bundle.get("CPU", 0.0), "GPU": 1 / int(1 / gpus + _SLACK) if 0 < gpus < 1 else gpus}


def _autoscales() -> bool:
    """Whether this is the head of a cluster made by Ray's launcher, which grows on demand; Tune looks here too."""
    return Path("~/ray_bootstrap_config.yaml").expanduser().exists()


@contextlib.contextmanager
def _requested(bundles: Sequence[Resources], times: int) -> Iterator[None]:
    """Ask the autoscaler, if there is one, for the bundles as long as the context lasts."""
    from ray.autoscaler.sdk import request_resources

    asked = [{key: value for key, value in bundle.items() if value} for bundle in bundles]
    request_resources(bundles=asked * times)
    try:
        yield
    finally:
        request_resources(bundles=[])


def _words(bundles: Sequence[Resources]) -> str:
    """E.g. `2 x (4 CPUs, 1 GPUs)`; bundles too small to matter are left out."""
    counts = Counter((bundle.get("CPU", 0.0), bundle.get("GPU", 0.0)) for bundle in bundles)
    return " and ".join(_shape(*shape, count) for shape, count in counts.items() if max(shape) >= 0.1)


def _shapes() -> str:
    counts = Counter((node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes())
    return "nodes of " + ", ".join(_shape(*shape, count) for shape, count in sorted(counts.items()))


def _shape(cpus: float, gpus: float, count: int) -> str:
    return f"{count} x ({cpus:g} CPUs{f', {gpus:g} GPUs' if gpus else ''})"
