"""Credentials for a job on a cluster, passed from the machine that submits it.

Ray shows the variables of a runtime environment in its logs and to everyone who queries a job, so none of them may be
secret. Credentials are sent as a file in the job's package instead, which each process of the job reads at its start.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from bgsweep.errors import UserError

FILE = ".bgsweep-environment.json"

PASSED_ON = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING",
    "BGSWEEP_NOTIFY",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
)
"""Environment variables that are passed to a submitted job if they are set."""

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")

IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Variable that Ray sets in the process of a job's own command only."""


def collect(names: Sequence[str] = ()) -> dict[str, str]:
    """The variables of this environment that a job needs, and those in `names`.

    Raises:
        UserError: a named one is not set.
    """
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise UserError(f"--env {missing[0]}: the variable is not set; export it first")
    return {name: os.environ[name] for name in (*PASSED_ON, *names) if name in os.environ}


def write(folder: Path, variables: Mapping[str, str]) -> None:
    """Write variables into a job's package, readable by its owner only."""
    path = folder / FILE
    # The mode before the content, so that there is no moment in which others can read it.
    path.touch(mode=0o600)
    path.write_text(json.dumps(dict(variables)), encoding="utf-8")


def restore() -> None:
    """Set the variables of the job's package, which is the working directory of the job's processes.

    Ray calls this in the job's workers (`worker_process_setup_hook`). Variables that the cluster sets itself win.
    """
    path = Path(FILE)
    if path.exists():
        for name, value in json.loads(path.read_text(encoding="utf-8")).items():
            os.environ.setdefault(name, value)
