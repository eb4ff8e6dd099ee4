"""Resources of a sweep's final evaluation: those that a trial had, as far as the cluster has them free."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from bgsweep.config import SweepConfig
from bgsweep.distributed.bundles import reserve, task_options
from bgsweep.distributed.resources import capacity, nodes
from bgsweep.distributed.train import one_worker

_MINUTES = 10.0  # another sweep's trials that are about to end free their GPUs within this time


@dataclass(frozen=True)
class Place:
    """The resources that the final evaluation has.

    Attributes:
        options: Ray's, of its task; workers that the task starts run in the same reservation.
        helpers: number of workers, each with what the task has, that encode large sets together with it.
        warning: a line for the user where it has to do without the GPU that trials had; else empty.
    """

    options: dict[str, Any]
    helpers: int = 0
    warning: str = ""


@contextlib.contextmanager
def reserved(config: SweepConfig, minutes: float | None = None, name: str = "bgsweep") -> Iterator[Place]:
    """Reserve what one trial had, else what one of its workers had, else CPU cores alone.

    Args:
        minutes: time to wait for each; None: `search.wait_minutes`, 10 where that is null.
        name: of the sweep.
    """
    one, count = one_worker(config), config.experiment.workers.count
    if minutes is None:
        minutes = _MINUTES if config.search.wait_minutes is None else config.search.wait_minutes
    options = {"num_cpus": one["CPU"], "num_gpus": one["GPU"]}
    if count == 1 and not one["GPU"]:
        yield Place(task_options(one))
        return
    for helpers in dict.fromkeys((count - 1, 0)):
        with _group([one] * (helpers + 1), minutes, f"{name}: final evaluation") as group:
            if group is not None:
                strategy = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
                yield Place({**options, "scheduling_strategy": strategy}, helpers)
                return
    lost = (
        f"no free GPU within {minutes:g} minutes: the final evaluation runs on the CPU, which takes much longer for "
        "large sets; `bgsweep sweep --resume` evaluates on a GPU if you stop this one"
    )
    yield Place({**options, "num_gpus": 0}, 0, lost if one["GPU"] else "")


@contextlib.contextmanager
def _group(bundles: list[dict[str, float]], minutes: float, name: str) -> Iterator[Any]:
    """A reservation of all bundles; None if the cluster is too small for them, or has none free in time."""
    if not capacity(nodes(), bundles, 1):
        yield None
        return
    group = reserve(bundles, name)
    try:
        yield group if group.wait(max(1.0, 60 * minutes)) else None
    finally:
        if ray.is_initialized():
            remove_placement_group(group)
