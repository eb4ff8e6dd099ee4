"""MLflow's system metrics of one machine: use of cores, memory, disk, network and GPUs."""

import os
from typing import Any

from bgsweep.tracking.client import quiet_mlflow

SWITCH = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
"""MLflow's own environment variable; system metrics are off without it."""


def wanted() -> bool:
    """True if the user has switched system metrics on."""
    return os.environ.get(SWITCH, "").strip().lower() in ("1", "true")


def monitor(address: str, run: str, node: str) -> Any:
    """Start to log this machine's metrics to a run, as ``system/NODE/…``; the result's `finish` stops it."""
    quiet_mlflow()
    from mlflow.system_metrics import system_metrics_monitor

    start: Any = system_metrics_monitor.SystemMetricsMonitor
    found = start(run, node_id=node, resume_logging=True, tracking_uri=address)
    found.start()
    return found
