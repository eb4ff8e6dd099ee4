"""The part of this machine that this process may use: CPU cores and memory."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_own_share: float | None = None


def usable_cores() -> int:
    """Cores that this process may run on, within the limit of its container."""
    # The affinity rather than the machine's cores: job schedulers and containers often give a process fewer.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(int(quota) for quota in _quotas())]))


def memory_limit() -> int:
    """Bytes of memory that the processes of this container or machine may use together."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [*_values("memory", "memory.max"), *_values("memory", "memory.limit_in_bytes")]
    return min([physical, *(int(limit) for limit in limits if limit.isdigit())])


def take_share(share: float) -> None:
    """Say which part of the machine is this process's: others of the same run, or other trials, have the rest."""
    global _own_share
    _own_share = min(1.0, max(share, 0.0))


def own_share() -> float:
    """The part of the machine, 0 to 1, that this process and its loader processes may use."""
    if _own_share is not None:
        return _own_share
    # torchrun and Ray Train set this variable to the number of workers that share the machine.
    return 1 / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _quotas() -> list[float]:
    """Limits in cores of this process's control groups."""
    found = [line.split() for line in _values("cpu", "cpu.max")]
    quotas = _values("cpu", "cpu.cfs_quota_us")
    found += [[*pair] for pair in zip(quotas, _values("cpu", "cpu.cfs_period_us"), strict=False)]
    return [int(quota) / int(period) for quota, period in found if quota.isdigit() and int(period)]


def _values(controller: str, file: str) -> list[str]:
    """The content of a control group's file, for this process's group and those above."""
    found = []
    for folder in _groups(_CGROUPS, controller):
        try:
            found.append((folder / file).read_text().strip())
        except OSError:
            continue
    return found


@cache
def _groups(root: Path, controller: str) -> tuple[Path, ...]:
    """Folders of this process's control groups, of version 2 or 1, from the innermost outwards.

    Inside a container its own group is often mounted as the root, so that the root is always among them.
    """
    return tuple(dict.fromkeys(_above(root, controller)))


def _above(root: Path, controller: str) -> Iterator[Path]:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controller if controllers else root
        group = top / path.lstrip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))
    yield from (root, root / controller)
