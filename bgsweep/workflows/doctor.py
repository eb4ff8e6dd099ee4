"""`bgsweep doctor`: check this machine, and what a file needs, before anything long starts."""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bgsweep.addresses import ray_address, silent, tracking_address
from bgsweep.config import SweepConfig, load
from bgsweep.data.cores import usable_cores
from bgsweep.data.sample import ImageDataset
from bgsweep.errors import UserError, without_password

Check = tuple[str, bool, str, str]
"""Name, whether it is in order, what was found, and how to fix it if it is not."""


def diagnose(path: Path | None, store: Path) -> dict[str, Any]:
    """Check this machine and, if a file is given, what that file needs.

    Returns:
        ``ok`` (False if something needed is missing) and ``checks``: ``name``, ``ok``, ``found``, ``fix``.
    """
    file = load(path) if path else None
    checks: list[Check] = [_device(file), _cores(), _disk(store), _tracking(store), _ray(), _timm(), _onnx()]
    if file is not None:
        checks += _data(file)
    names = ("name", "ok", "found", "fix")
    needed = {"device", "disk", "tracking", "ray", "data", "batch", "masks", "views"}
    return {
        "ok": all(ok for name, ok, *_ in checks if name in needed),
        "checks": [dict(zip(names, check, strict=True)) for check in checks],
    }


def _device(config: SweepConfig | None) -> Check:
    import torch

    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        names = ", ".join(sorted({torch.cuda.get_device_name(index) for index in range(count)}))
        need = config.gpus_of_process(available=True) if config else 0
        takes = f"; each trial or worker takes {need:g}" if config else ""
        fix = f"lower search.gpus or workers.gpus to {count}, unless another machine trains"
        return "device", need <= count, f"{count} GPUs ({names}){takes}", fix
    wanted = config is not None and config.experiment.workers.device == "cuda"
    fix = "the file asks for cuda: use a machine with a GPU and its driver, or workers.device=cpu"
    return "device", not wanted, f"no GPU; training runs on {torch.get_num_threads()} CPU threads", fix


def _cores() -> Check:
    return "cores", True, f"{usable_cores()} for this process", ""


def _disk(store: Path) -> Check:
    folder = next(parent for parent in (store.absolute(), *store.absolute().parents) if parent.exists())
    free = shutil.disk_usage(folder).free / 2**30
    return (
        "disk",
        free > 1,
        f"{free:.1f} GiB free for {store}",
        "free some disk space, or name another folder by --store",
    )


def _tracking(store: Path) -> Check:
    try:
        uri = tracking_address()
    except UserError as error:
        return _refused("tracking", error)
    if uri is None:
        return "tracking", True, f"SQLite in {store} (set MLFLOW_TRACKING_URI for a server)", ""
    shown = without_password(uri)
    if reason := silent(uri):
        return (
            "tracking",
            False,
            f"{shown} does not answer ({reason})",
            "start the MLflow server, or correct MLFLOW_TRACKING_URI",
        )
    return (
        "tracking",
        True,
        f"{shown} {'answers' if uri.startswith('http') else '(reachable from this machine only)'}",
        "",
    )


def _ray() -> Check:
    try:
        address = ray_address()
    except UserError as error:
        return _refused("ray", error)
    if address is None:
        return "ray", True, "starts on this machine when needed (set RAY_ADDRESS to join a cluster)", ""
    if address == "auto":
        return "ray", True, "joins the cluster that this machine belongs to", ""
    return "ray", True, f"{address} answers", ""


def _refused(name: str, error: UserError) -> Check:
    found, _, fix = str(error).partition("; ")
    return name, False, found, fix


def _timm() -> Check:
    found = importlib.util.find_spec("timm") is not None
    return "timm", found, "installed" if found else "not installed", "for timm's encoders: pip install 'bgsweep[timm]'"


def _onnx() -> Check:
    found = importlib.util.find_spec("onnxruntime") is not None
    return (
        "onnxruntime",
        found,
        "installed" if found else "not installed",
        "for `export --to onnx`, and masks by other networks than U2-Net-P: pip install 'bgsweep[onnx]'",
    )


def _data(config: SweepConfig) -> Iterator[Check]:
    from bgsweep.data import notes, open_splits
    from bgsweep.data.kept_backgrounds import check_views
    from bgsweep.data.loader import check_batch
    from bgsweep.data.mask_notes import kinds_note, missing_note
    from bgsweep.evaluation import check

    try:
        splits, lines = open_splits(config.experiment.data), notes(config.experiment.data)
        check(splits, config.evaluate)
    except UserError as error:
        yield _refused("data", error)
        return
    try:
        check_batch(splits.train, config.experiment.training.batch_size)
    except UserError as error:
        yield _refused("batch", error)
    for name in ("train", "validation", "test"):
        yield from _readable(name, getattr(splits, name))
    for line in lines:
        yield "splits", True, line, ""
    masks = splits.train.has_masks
    needed = config.augments_background or config.experiment.data.shortcut is not None
    fix = "background augmentations need a mask for each image: `bgsweep masks make`, then set data.masks"
    found = [missing_note(splits.train) or "for every image", kinds_note(splits.train)]
    yield "masks", masks or not needed, "; ".join(filter(None, found)) if masks else "none", fix
    if masks and config.augments_background:
        try:
            check_views(config.experiment, splits.train)
        except UserError as error:
            yield _refused("views", error)


def _readable(split: str, source: ImageDataset) -> Iterator[Check]:
    from bgsweep.data.survey import survey

    found, fix = survey(source), "they are skipped in training and evaluation; replace or remove them"
    yield split, True, f"{source.name}: {len(source)} images in {len(source.classes)} classes", ""
    if found.unreadable:
        # Training skips such images, so that they are no reason for exit code 2.
        count = f"{len(found.unreadable)} of the {found.looked_at} looked at cannot be used"
        yield f"{split} files", False, f"{count}, the first: {found.unreadable[0]}", fix
