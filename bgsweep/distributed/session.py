"""A Ray session for one command: an existing cluster, or a new one on this machine."""

import contextlib
import functools
import inspect
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import ray

from bgsweep.addresses import ray_address
from bgsweep.data.cores import usable_cores
from bgsweep.distributed.warm import HOOK
from bgsweep.errors import UserError, one_line, without_password

# Ray Train's controller sees a report, or a worker's end, only when it polls: every 2 s by default, which delays short
# epochs. Polling five times a second took 5 % of two workers' speed on a machine of two cores.
_WORKER_ENVIRONMENT = {
    "NO_ALBUMENTATIONS_UPDATE": "1",
    # Trials and Ray Train's workers run where the driver does, so that paths in the config mean the same to all.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
}
_DRIVER_ENVIRONMENT = {"RAY_TRAIN_ENABLE_STATE_TRACKING": "0"}  # Tune and Train would print their own progress
_DASHBOARD = "RAY_API_SERVER_ADDRESS"
_OF_RAY = ("RAY_", "TUNE_")
_LOGGERS = dict.fromkeys(("ray", "ray.train", "ray.data"), logging.ERROR) | {
    "ray.tune": logging.CRITICAL,  # a sweep reports failed trials itself, one line each
    # A store that refuses writes is reported where something is written; Ray logs a traceback for each folder before.
    "ray.train._internal.storage": logging.CRITICAL,
}


@contextlib.contextmanager
def ray_session(cpus: float, dashboard: bool = False) -> Iterator[None]:
    """Join the cluster of RAY_ADDRESS (or of the job that this process is), else start Ray; disconnect at the end.

    A Ray that this process has joined already is used, and stays.

    A Ray started here has at least ``cpus`` CPUs, even if the machine has fewer. ``dashboard`` is needed by Ray Train
    under Tune, whose clean-up after stopped trials uses its State API; it costs two workers on two cores 5 %.

    Raises:
        UserError: the cluster cannot be reached, or the Ray that is there cannot be used.
    """
    if ray.is_initialized():
        with _joined_already(dashboard):
            yield
        return
    os.environ.update(_environment(None))
    # A Ray that is started here would start a Python for each core, which no job with a runtime environment can use.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    for name, value in _DRIVER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    address = ray_address()
    port = _free_port() if dashboard and not address else None
    main, on_stop = threading.current_thread() is threading.main_thread(), signal.getsignal(signal.SIGTERM)
    try:
        _connect(address, cpus, port)
    except Exception as error:  # Ray raises plain Exceptions too, where a node does not come up in time
        where = f"RAY_ADDRESS={without_password(address)} cannot be joined" if address else "Ray cannot be started here"
        hint = "unset RAY_ADDRESS to start Ray here" if address else "end what else runs here, then try again"
        raise UserError(f"{where}: {one_line(error).rstrip('.')}; {hint}") from error
    if main:  # Ray installs its own handler, which ends the process without a message
        signal.signal(signal.SIGTERM, on_stop)
    _quiet()
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _joined_already(dashboard: bool) -> Iterator[None]:
    """The user's own Ray. Its runtime environment is settled, so that trials and workers get theirs one by one.

    Tune and Ray Train copy these variables from this process into the runtime environment of what they start
    (`ray.tune.execution.class_cache`, `ray.train.v2._internal.constants`). They are removed at the end: other programs
    on this Ray should keep their own folders and time limits.
    """
    node = ray._private.worker._global_node
    if node is None:
        raise UserError(
            "ray: Ray Client is connected, through which a sweep cannot run; use `bgsweep submit`, or run this program "
            "on a node of the cluster"
        )
    if dashboard and not node.webui_url:
        raise UserError(
            "ray: it runs without its dashboard, through which Ray Train frees the resources of stopped trials; start "
            "it by ray.init(include_dashboard=True), or leave ray.init out"
        )
    before = {key: value for key, value in os.environ.items() if key.startswith(_OF_RAY)}
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    wanted = _environment(None) | _DRIVER_ENVIRONMENT
    if dashboard:
        wanted[_DASHBOARD] = f"http://{node.webui_url}"
    os.environ.update(wanted | before)
    _quiet()
    try:
        yield
    finally:
        for key in [key for key in os.environ if key.startswith(_OF_RAY) and key not in before]:
            del os.environ[key]
        os.environ.update(before)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _quiet() -> None:
    for name, level in _LOGGERS.items():
        logging.getLogger(name).setLevel(level)


def _environment(dashboard_port: int | None) -> dict[str, str]:
    """The workers' environment, as far as the user has set it, and the address of a dashboard started here.

    Without that address they search the machine's processes for it, and may find another Ray's: then the processes of
    a stopped trial on Ray Train would keep their cores for ever.
    """
    found = {key: os.environ.get(key, value) for key, value in _WORKER_ENVIRONMENT.items()}
    if dashboard_port is None:
        return found
    return found | {_DASHBOARD: f"http://127.0.0.1:{dashboard_port}"}


def _connect(address: str | None, cpus: float, dashboard_port: int | None) -> None:
    """Join the Ray at an address, or start one with a dashboard if it has a port."""
    common: dict[str, Any] = {
        "runtime_env": {"env_vars": _environment(dashboard_port)},
        # Ray prints workers' lines a second time where print is patched, and Train and Tune are chatty.
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    if address:
        ray.init(address=address, **common)
        return
    with _any_agent_port(), _own_session():
        _start(cpus, dashboard_port, common)


def _start(cpus: float, dashboard_port: int | None, common: Mapping[str, Any]) -> None:
    environment = {**common["runtime_env"], "worker_process_setup_hook": HOOK}
    ray.init(
        # Without this Ray would first try to join a cluster that another user runs on this machine.
        address="local",
        num_cpus=max(usable_cores(), int(-(-cpus // 1))),
        # Ray Train frees what a stopped trial held through the dashboard's State API: without it, GPUs of
        # trials that ASHA stops are never freed, and later trials wait for ever.
        include_dashboard=dashboard_port is not None,
        dashboard_port=dashboard_port,
        **{**common, "runtime_env": environment},
    )


@contextlib.contextmanager
def _any_agent_port() -> Iterator[None]:
    """A context in which a started Ray's agent takes any free port.

    By itself it wants 52365, and where another Ray on the machine has that, the start waits 3.3 s until the agent gives
    up. `ray start` has an option for it, `ray.init` none.
    """
    try:
        from ray._private.parameter import RayParams
    except ImportError:  # of a later Ray, as below
        yield
        return
    wanted: Any = RayParams.__init__
    if "dashboard_agent_listen_port" not in inspect.signature(wanted).parameters:
        yield
        return
    RayParams.__init__ = functools.partialmethod(wanted, dashboard_agent_listen_port=0)  # type: ignore
    try:
        yield
    finally:
        RayParams.__init__ = wanted  # type: ignore[method-assign]


@contextlib.contextmanager
def _own_session() -> Iterator[None]:
    """A context in which a started Ray's processes leave the driver's group.

    A signal to the group, as `timeout` sends it, would end Ray before the driver has closed its runs: Ray's code in the
    driver then aborts it. Only where the kernel ends Ray's processes with a killed driver: elsewhere Ray finds them by
    their group.
    """
    try:
        from ray._private import services
        from ray._private.utils import detect_fate_sharing_support

        start, supported = services.ConsolePopen, detect_fate_sharing_support()
    except (ImportError, AttributeError):  # of a later Ray, as above
        supported = False
    if not supported:
        yield
        return
    services.ConsolePopen = functools.partial(start, start_new_session=True)  # type: ignore
    try:
        yield
    finally:
        services.ConsolePopen = start  # type: ignore[misc]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
