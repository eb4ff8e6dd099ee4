"""Changes of an experiment's settings with which its run may still go on from a checkpoint."""

from collections.abc import Mapping
from typing import Any

from bgsweep.config.base import dotted
from bgsweep.config.experiment import Experiment

_PATHS = {"data.images", "data.masks", "data.pack", "data.columns.root"}
_OPERATIONAL = {
    *_PATHS,
    "background.most_kept",
    "data.cache",
    "data.loader",
    "data.loader_memory_gb",
    "data.loader_workers",
    "data.pack_cache_gb",
    "training.checkpoint_every",
    "workers.accelerator_type",
    "workers.count",
    "workers.cpus",
    "workers.device",
    "workers.gpus",
    "workers.labels",
    "workers.max_failures",
    "workers.memory_gb",
    "workers.min_count",
}
Changes = dict[str, tuple[Any, Any]]
"""Dotted keys with their values before and now."""


def changes(before: Experiment, now: Experiment) -> Changes:
    """All keys whose values differ; those that only one of two methods has are None in the other."""
    old, new = dotted(before.model_dump(mode="json")), dotted(now.model_dump(mode="json"))
    return {key: (old.get(key), new.get(key)) for key in sorted(old | new) if old.get(key) != new.get(key)}


def decisive(before: Experiment, now: Experiment) -> Changes:
    """The changes that make another run of it: those of any key that decides results, and fewer epochs.

    The number of workers is none, since the global batch stays the same; but MoCo's groups of BatchNorm, which keep a
    query from recognising its key, must stay as many. Paths of images are none either: whoever resumes compares what
    is there (`bgsweep.data.fingerprint`), if they have `moved`.
    """
    found = changes(before, now)
    allowed = set(_OPERATIONAL)
    if now.training.epochs > before.training.epochs:
        allowed.add("training.epochs")
    if before.encoder.weights_digest == now.encoder.weights_digest is not None:
        allowed.add("encoder.weights")
    groups = _moco_groups(before), _moco_groups(now)
    if groups[0] == groups[1]:
        allowed.add("method.split_bn")
    else:
        allowed.discard("workers.count")
    return {key: values for key, values in found.items() if key not in allowed}


def moved(found: Changes) -> bool:
    """True if images or masks are at another path."""
    return not _PATHS.isdisjoint(found)


def other_images(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """The splits whose fingerprints differ."""
    return tuple(split for split in now if before.get(split) != now[split])


def told(found: Changes) -> str:
    """The changes in one line."""
    return ", ".join(f"{key}: {old} before, {new} now" for key, (old, new) in found.items())


def _moco_groups(experiment: Experiment) -> int | None:
    split: int | None = getattr(experiment.method, "split_bn", None)
    return None if split is None else split * experiment.workers.count
