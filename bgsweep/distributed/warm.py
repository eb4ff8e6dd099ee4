"""Processes that import what training needs before they are given a trial.

Ray starts two processes for a task in whose runtime environment there is none yet, and keeps the other one for what
comes next in that environment. So the task that sets up a sweep's first trial runs in the environment of trials: both
processes import at the same time, and the first trial finds one that has done so.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from bgsweep.config import SweepConfig
from bgsweep.distributed.credentials import KEYS

HOOK = "bgsweep.distributed.warm.import_ahead"
"""Setting of a job's runtime environment, by which Ray calls it in each new process."""

_TRAINS = "BGSWEEP_TRAINS"  # marks the environment of trials: other processes do without torch's half a gigabyte


def import_ahead() -> None:
    """Import torch and the encoders, in a process for trials."""
    if _TRAINS in os.environ:
        with contextlib.suppress(Exception):  # told by the trial, as in any other process
            import bgsweep.training.seeded_run  # noqa: F401


@contextlib.contextmanager
def trials_apart(config: SweepConfig) -> Iterator[None]:
    """A context in which the trials that Tune starts have an environment of their own, unless they wait for Ray Train.

    Entered when Ray runs: a Ray that is started within would have that environment in all its processes.
    """
    from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE

    # Tune would put these into each trial's runtime environment, which Ray writes into its logs.
    ENV_VARS_TO_PROPAGATE.difference_update(KEYS)
    ENV_VARS_TO_PROPAGATE.add("RAY_API_SERVER_ADDRESS")  # set on a Ray that the user has started (`ray_session`)
    if config.experiment.workers.count > 1:
        yield
        return
    ENV_VARS_TO_PROPAGATE.add(_TRAINS)
    os.environ[_TRAINS] = "1"
    try:
        yield
    finally:
        del os.environ[_TRAINS]


def trial_environment() -> dict[str, Any]:
    """Options of a task for which a trial's process will do; none outside of `trials_apart`.

    The variables are those that Tune gives its trials (`ray.tune.execution.class_cache`).
    """
    if _TRAINS not in os.environ:
        return {}
    from ray.tune.execution.class_cache import DEFAULT_ENV_VARS, ENV_VARS_TO_PROPAGATE

    passed_on = {name: os.environ[name] for name in sorted(ENV_VARS_TO_PROPAGATE) if name in os.environ}
    return {"runtime_env": {"env_vars": DEFAULT_ENV_VARS | passed_on}}
