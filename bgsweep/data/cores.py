"""The number of CPU cores available to this process."""

import os


def usable_cores() -> int:
    """Cores that this process may run on."""
    # The affinity rather than the machine's cores: job schedulers and containers often give a process fewer.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
