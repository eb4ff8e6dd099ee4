"""Ray for the length of one command: a cluster that is already there, or a quiet one on this machine."""

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import ray

from bgsweep.addresses import ray_address
from bgsweep.data.cores import usable_cores
from bgsweep.errors import UserError, one_line, without_password

# Ray Train's controller sees a report, or a worker's end, only when it polls: every 2 s by default, which short epochs
# feel. Polling five times a second took 5 % of two workers' speed on a machine of two cores.
_WORKER_ENVIRONMENT = {
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
}


@contextlib.contextmanager
def ray_session(cpus: float, dashboard: bool = False) -> Iterator[None]:
    """Join the cluster that RAY_ADDRESS (or the job that we run in) names, else start Ray here; leave it at the end.

    A Ray started here has at least ``cpus`` CPUs, whatever the machine has. ``dashboard`` is needed by Ray Train under
    Tune, whose clean-up after stopped trials asks its State API; two workers on two cores lose a twentieth to it.

    Raises:
        UserError: the cluster cannot be reached.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in _WORKER_ENVIRONMENT.items()})
    # A Ray that is started here would start a Python for each core, which no job with a runtime environment can use.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    # Tune and Train print pages of progress of their own; ours replaces it.
    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
    address = ray_address()
    port = _free_port() if dashboard and not address else None
    common: dict[str, Any] = {
        "runtime_env": {"env_vars": _environment(port)},
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    main, on_stop = threading.current_thread() is threading.main_thread(), signal.getsignal(signal.SIGTERM)
    try:
        if address:
            ray.init(address=address, **common)
        else:
            ray.init(
                address="local",
                num_cpus=max(usable_cores(), int(-(-cpus // 1))),
                include_dashboard=dashboard,
                dashboard_port=port,
                **common,
            )
    except Exception as error:  # Ray raises plain Exceptions too, where a node does not come up in time
        where = f"RAY_ADDRESS={without_password(address)} cannot be joined" if address else "Ray cannot be started here"
        cure = "; unset RAY_ADDRESS to start Ray here" if address else ""
        raise UserError(f"{where}: {one_line(error).rstrip('.')}{cure}") from error
    if main:  # Ray has put a handler of its own there, which ends the process without a word
        signal.signal(signal.SIGTERM, on_stop)
    for name in ("ray", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a sweep tells of failed trials itself, in a line each
    try:
        yield
    finally:
        ray.shutdown()


def _environment(dashboard_port: int | None) -> dict[str, str]:
    """The workers' environment, in which they are told of a dashboard that is started here.

    They would look for it among the machine's processes, and find another Ray's too; what is left of a stopped trial on
    Ray Train would then keep its cores for ever.
    """
    if dashboard_port is None:
        return _WORKER_ENVIRONMENT
    return _WORKER_ENVIRONMENT | {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard_port}"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
