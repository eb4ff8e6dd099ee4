"""The resources that a sweep's trials ask of the cluster, and how many trials fit."""

from collections.abc import Mapping

from bgsweep.config import SweepConfig
from bgsweep.distributed.resources import capacity, nodes, say, wait_for_resources
from bgsweep.distributed.train import WORKERS_CURE, one_worker, worker_bundles, worker_cpus
from bgsweep.sweep.budget import check_budget
from bgsweep.sweep.trial import WAITING_CPUS

_MANY = 4096  # more trials at a time than any sweep has


def cpus_of_trial(config: SweepConfig) -> float:
    """CPUs of one trial, before there is a cluster to ask."""
    return worker_cpus(config) + (WAITING_CPUS if config.experiment.workers.count > 1 else config.search.cpus)


def bundles_of_trial(config: SweepConfig) -> list[dict[str, float]]:
    """The resources of one trial: a dictionary for each of its processes."""
    if config.experiment.workers.count > 1:
        return [*worker_bundles(config), {"CPU": WAITING_CPUS}]
    return [one_worker(config), *worker_bundles(config)]


def gpus_of_trial(config: SweepConfig) -> float:
    """GPUs of one trial, on the cluster that this process has joined."""
    return sum(bundle.get("GPU", 0.0) for bundle in bundles_of_trial(config))


def wait_for_capacity(config: SweepConfig) -> None:
    """Wait until the cluster can run the trials that are wanted at a time.

    Raises:
        UserError: it never can, or could not within `search.wait_minutes`; or `search.budget` counts GPUs of trials
            that have none.
    """
    cure = WORKERS_CURE if worker_cpus(config) else "search.cpus or search.gpus"
    wait_for_resources(bundles_of_trial(config), cure, config.search.wait_minutes, say, config.search.concurrent or 1)
    check_budget(config.search.budget, gpus_of_trial(config))
    workers = config.experiment.workers
    if workers.count == 1 and workers.device == "auto" and config.search.gpus == 0 and any(map(_gpus, nodes())):
        say("there are GPUs, but search.gpus: 0 gives trials none; leave it out, or set it to a share of one")


def trials_that_fit(config: SweepConfig) -> int:
    """The number of trials that the whole cluster can run at a time; Tune itself does not count Ray Train's workers."""
    return max(1, capacity(nodes(), bundles_of_trial(config), _MANY))


def _gpus(node: Mapping[str, float]) -> float:
    return node.get("GPU", 0.0)
