"""Credentials on their way from a laptop to a job on a cluster.

Ray shows a runtime environment's variables in its logs and to whoever asks about a job, so that nothing secret may be
among them. They travel as a file in the job's package instead, which each process of the job reads when it begins.
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
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
)
"""Variables that a job gets from whoever submits it, where they are set."""

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")

IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""What Ray sets for a job's own command, and nobody else."""


def collect(names: Sequence[str] = ()) -> dict[str, str]:
    """This environment's variables that a job needs, with those named besides.

    Raises:
        UserError: a named one is not set.
    """
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise UserError(f"--env {missing[0]}: the variable is not set; export it first")
    return {name: os.environ[name] for name in (*PASSED_ON, *names) if name in os.environ}


def write(folder: Path, variables: Mapping[str, str]) -> None:
    """Put variables into a job's package."""
    path = folder / FILE
    path.touch(mode=0o600)
    path.write_text(json.dumps(dict(variables)), encoding="utf-8")


def restore() -> None:
    """Set what the job's package brings, in a process of the job, which begins in it.

    Ray calls this in the job's workers (`worker_process_setup_hook`). What the cluster's own environment says is left.
    """
    path = Path(FILE)
    if path.exists():
        for name, value in json.loads(path.read_text(encoding="utf-8")).items():
            os.environ.setdefault(name, value)
