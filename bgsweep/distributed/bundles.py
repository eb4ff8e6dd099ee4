"""Resources and labels that a process asks of its node, and their forms for Ray."""

from collections.abc import Mapping, Sequence
from typing import Any

from ray.util.placement_group import PlacementGroup, placement_group

from bgsweep.config import Workers
from bgsweep.distributed.dashboard import unique

Resources = Mapping[str, float]
"""Numbers of CPUs and GPUs, bytes of memory, and what a node has one of; as a bundle, all of them on one node."""

LABEL, ACCELERATOR = "label:", "accelerator_type:"
"""Prefixes of a node's labels, ``label:KEY=VALUE``, and of its accelerators; the second is Ray's own."""

_A_TRACE = 0.001  # of an accelerator type, which says that it is needed, as in Ray


def bundle_of(workers: Workers, cpus: float, gpus: float) -> dict[str, float]:
    """Resources of one process that trains."""
    bundle = {"CPU": cpus, "GPU": gpus}
    if workers.memory_gb is not None:
        bundle["memory"] = workers.memory_gb * 1e9
    if workers.accelerator_type is not None:
        bundle[ACCELERATOR + workers.accelerator_type] = _A_TRACE
    return bundle | {LABEL + label: 1.0 for label in workers.labels}


def ray_resources(bundle: Resources) -> dict[str, float]:
    """The bundle without its labels, and without what it has none of."""
    return {key: value for key, value in bundle.items() if value and not key.startswith(LABEL)}


def ray_labels(bundle: Resources) -> dict[str, str]:
    """The bundle's labels, as a selector of nodes."""
    pairs = (key.removeprefix(LABEL).partition("=") for key in bundle if key.startswith(LABEL))
    return {key: value for key, _, value in pairs}


def task_options(bundle: Resources) -> dict[str, Any]:
    """Options of a Ray task that gets the bundle."""
    custom = ray_resources(bundle)
    options = {"num_cpus": custom.pop("CPU", 0.0), "num_gpus": custom.pop("GPU", 0.0)}
    if memory := custom.pop("memory", None):
        options["memory"] = memory
    return options | ({"resources": custom} if custom else {}) | _selector("label_selector", ray_labels(bundle))


def reserve(bundles: Sequence[Resources], name: str) -> PlacementGroup:
    """A placement group of the bundles, which may be pending; Ray's dashboard shows it under its name."""
    group: PlacementGroup = placement_group(**group_arguments(bundles), name=unique(name))
    return group


def group_arguments(bundles: Sequence[Resources]) -> dict[str, Any]:
    """Arguments of a placement group, or of Tune's for a trial."""
    labels = [ray_labels(bundle) for bundle in bundles]
    return {"bundles": [ray_resources(bundle) for bundle in bundles]} | (
        _selector("bundle_label_selector", labels) if any(labels) else {}
    )


def _selector(name: str, labels: Any) -> dict[str, Any]:
    """An argument only where there are labels."""
    return {name: labels} if labels else {}
