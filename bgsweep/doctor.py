"""What is here and what is missing for what, before anything long starts."""

import importlib.util
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from bgsweep.config import SweepFile, load
from bgsweep.data.cores import usable_cores
from bgsweep.data.sample import Source
from bgsweep.errors import UserError

Check = tuple[str, bool, str, str]
"""Name, whether it is well, what was found, and the cure where it is not."""


def examine(path: Path | None, store: Path) -> dict[str, Any]:
    """Look at this machine and, if a file is named, at what that file needs.

    Returns:
        ``ok`` (nothing that the file needs is missing) and ``checks``: ``name``, ``ok``, ``found``, ``cure``.
    """
    file = load(path) if path else None
    checks: list[Check] = [_device(file), _cores(), _room(store), _tracking(store), _ray(), _timm(), _onnx()]
    if file is not None:
        checks += _data(file)
    names = ("name", "ok", "found", "cure")
    needed = {"device", "disk", "tracking", "ray", "train", "validation", "test", "masks"}
    return {
        "ok": all(ok for name, ok, *_ in checks if name in needed),
        "checks": [dict(zip(names, check, strict=True)) for check in checks],
    }


def _device(file: SweepFile | None) -> Check:
    import torch

    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}
        return "device", True, f"{torch.cuda.device_count()} GPUs ({', '.join(sorted(names))})", ""
    wanted = file is not None and file.experiment.workers.device == "cuda"
    cure = "the file asks for cuda: use a machine with a GPU and its driver, or workers.device=cpu"
    return "device", not wanted, f"no GPU; training runs on {torch.get_num_threads()} CPU threads", cure


def _cores() -> Check:
    return "cores", True, f"{usable_cores()} for this process", ""


def _room(store: Path) -> Check:
    folder = next(parent for parent in (store.absolute(), *store.absolute().parents) if parent.exists())
    free = shutil.disk_usage(folder).free / 2**30
    return "disk", free > 1, f"{free:.1f} GiB free for {store}", "free some space, or name another folder by --store"


def _tracking(store: Path) -> Check:
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None:
        return "tracking", True, f"SQLite in {store} (set MLFLOW_TRACKING_URI for a server)", ""
    if not uri.startswith(("http://", "https://")):
        return "tracking", True, f"{uri} (reached from this machine only)", ""
    address = urlparse(uri)
    port = address.port or (443 if address.scheme == "https" else 80)
    cure = "start the MLflow server, or correct MLFLOW_TRACKING_URI"
    return "tracking", *_reach(address.hostname or "", port, f"{address.hostname}:{port}"), cure


def _ray() -> Check:
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        return "ray", True, "starts on this machine when needed (set RAY_ADDRESS to join a cluster)", ""
    if address == "auto":
        return "ray", True, "joins the cluster that this machine belongs to", ""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    cure = "start the cluster, or correct or unset RAY_ADDRESS"
    if not port.isdigit():
        return "ray", False, f"RAY_ADDRESS={address} names no port", cure
    return "ray", *_reach(host, int(port), address), cure


def _reach(host: str, port: int, shown: str) -> tuple[bool, str]:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        return False, f"{shown} does not answer ({error.strerror or error})"
    return True, f"{shown} answers"


def _timm() -> Check:
    found = importlib.util.find_spec("timm") is not None
    return "timm", found, "installed" if found else "not installed", "for timm's encoders: pip install 'bgsweep[timm]'"


def _onnx() -> Check:
    found = importlib.util.find_spec("onnxruntime") is not None
    return "onnxruntime", found, "installed" if found else "not installed", "for masks by U2-Net: 'bgsweep[masks]'"


def _data(file: SweepFile) -> Iterator[Check]:
    from bgsweep.data import open_splits

    try:
        splits = open_splits(file.experiment.data)
    except UserError as error:
        yield "train", False, str(error), "see data: in the file"
        return
    for name in ("train", "validation", "test"):
        yield name, True, _count(getattr(splits, name)), ""
    masks = splits.train.has_masks
    needed = file.experiment.background.active or file.experiment.data.shortcut is not None
    cure = "background augmentations need a mask for each image: `bgsweep masks make`, then set data.masks"
    yield "masks", masks or not needed, "for every photograph" if masks else "none", cure


def _count(source: Source) -> str:
    return f"{len(source)} photographs in {len(source.classes)} classes"
