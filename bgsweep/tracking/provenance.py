"""Where a run comes from: the code that makes it, and the process that owns it."""

import contextlib
import importlib.metadata
import os
import platform
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psutil

_PACKAGES = ("bgsweep", "torch", "torchvision", "ray", "albumentations", "mlflow", "optuna", "numpy")


def provenance() -> dict[str, str]:
    """Tags that say what code makes a run: package versions, Python, and the commit where bgsweep is a git checkout."""
    tags = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            tags[f"version.{name}"] = importlib.metadata.version(name)
    commit = os.environ.get("BGSWEEP_GIT_COMMIT") or _git("rev-parse", "HEAD")
    if commit:
        tags["mlflow.source.git.commit"] = commit
        tags["git.dirty"] = str(bool(_git("status", "--porcelain"))).lower()
    return tags


def _git(*arguments: str) -> str:
    """Git's answer about the checkout that tracks this file, or nothing."""
    here = Path(__file__)
    for command in (("ls-files", "--error-unmatch", here.name), arguments):
        try:
            answer = subprocess.run(["git", "-C", here.parent, *command], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return ""
    return answer.stdout.strip()


def owner() -> dict[str, str]:
    """Tags that name this process; its start tells it from a later one with the same number."""
    born = psutil.Process().create_time()
    return {"bgsweep.host": socket.gethostname(), "bgsweep.pid": str(os.getpid()), "bgsweep.born": f"{born:.1f}"}


def owner_lives(tags: Mapping[str, str]) -> bool:
    try:
        born = psutil.Process(int(tags["bgsweep.pid"])).create_time()
    except psutil.NoSuchProcess:
        return False
    return abs(born - float(tags["bgsweep.born"])) < 1
