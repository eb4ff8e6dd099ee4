"""Tags of a run's origin: the code version, the user and command, and the process that owns it."""

import contextlib
import getpass
import importlib.metadata
import os
import platform
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psutil

_PACKAGES = ("bgsweep", "torch", "torchvision", "ray", "albumentations", "mlflow", "optuna", "numpy")

COMMIT = "BGSWEEP_GIT_COMMIT"
"""Variable that gives the commit where bgsweep is no git checkout: in an image, or uploaded with a job."""

_UNKNOWN = "unknown"  # the value of it in an image that was built without one


def provenance() -> dict[str, str]:
    """Tags of the code: package versions, Python, and the commit if it is given (`COMMIT`) or bgsweep is a checkout.

    Whether there are changes beside the commit is known of a checkout only.
    """
    tags = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            tags[f"version.{name}"] = importlib.metadata.version(name)
    if (given := os.environ.get(COMMIT)) and given != _UNKNOWN:
        tags["mlflow.source.git.commit"] = given
    elif commit := _git("rev-parse", "HEAD"):
        tags["mlflow.source.git.commit"] = commit
        tags["git.dirty"] = str(bool(_git("status", "--porcelain"))).lower()
    return tags


def commit_of_copy() -> dict[str, str]:
    """`COMMIT` for processes that run a copy of this code: the checkout's, with ``-dirty`` if it has changes.

    Without a checkout its value is that of this process, or says that none is known: that of the image in which the
    copy runs is of other code.
    """
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return {COMMIT: os.environ.get(COMMIT) or _UNKNOWN}
    return {COMMIT: f"{commit}-dirty" if _git("status", "--porcelain") else commit}


def source(command: str) -> dict[str, str]:
    """Tags by which MLflow shows who started a run, and with which command of bgsweep."""
    return {"mlflow.user": user(), "mlflow.source.name": f"bgsweep {command}", "mlflow.source.type": "LOCAL"}


def user() -> str:
    """The user's name; the number where a container has no name for it."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # of Python from 3.13 on, and before
        return str(os.getuid())


def _git(*arguments: str) -> str:
    """Git's output for the checkout that tracks this file; empty if there is none.

    An installed package may lie inside another project's checkout (in its .venv), whose commit would be wrong.
    """
    here = Path(__file__)
    for command in (("ls-files", "--error-unmatch", here.name), arguments):
        try:
            answer = subprocess.run(["git", "-C", here.parent, *command], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return ""
    return answer.stdout.strip()


def owner() -> dict[str, str]:
    """Tags of this process; the start time distinguishes it from a later process with the same id."""
    born = psutil.Process().create_time()
    return {"bgsweep.host": socket.gethostname(), "bgsweep.pid": str(os.getpid()), "bgsweep.born": f"{born:.1f}"}


def owner_lives(tags: Mapping[str, str]) -> bool:
    """True if the process with these tags, which must be of this host, is running."""
    try:
        born = psutil.Process(int(tags["bgsweep.pid"])).create_time()
    except psutil.NoSuchProcess:
        return False
    return abs(born - float(tags["bgsweep.born"])) < 1
