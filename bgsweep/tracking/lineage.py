"""Lineage of an encoder, as far as MLflow has it: run, sweep, code, images, and the values measured."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bgsweep.addresses import tracking_address
from bgsweep.config.metric_names import shown_name, with_new_names
from bgsweep.errors import UserError
from bgsweep.tracking.client import mlflow_client, pages, tracking_uri
from bgsweep.tracking.datasets import digest_of_images
from bgsweep.tracking.encoders import Loaded

_TAGS = {
    "bgsweep.trial": "trial",
    "mlflow.source.git.commit": "git_commit",
    "version.bgsweep": "bgsweep",
}
"""Tags of a run, or of its parent, and their names in the lineage."""


def lineage(loaded: Loaded, model: str, store: Path) -> dict[str, Any]:
    """The origin of an encoder that bgsweep trained, as plain values; what is not recorded is missing.

    A checkpoint's run is found by the digest of its experiment.

    Args:
        model: the name by which it was loaded.
        store: folder of the local MLflow store.

    Returns:
        ``digest``; ``run_id``, ``sweep``, ``trial``, ``git_commit``, ``bgsweep`` (its version), ``registered`` (as
        ``models:/NAME/VERSION``), ``reason`` (of its alias); ``images``: for ``train``, ``validation`` and ``test``
        their ``name``, ``count`` and ``digest``; ``metrics``: a list of ``name``, ``value`` and, if it was measured on
        one of these sets, ``count`` of its images.
    """
    if loaded.experiment is None:
        return {}
    found: dict[str, Any] = {"digest": loaded.experiment.digest, "images": {}}
    found["metrics"] = [{"name": name, "value": value} for name, value in sorted(_measured(loaded.metrics).items())]
    # A checkpoint is complete without its store: one that cannot be read must not prevent the use of the encoder.
    with contextlib.suppress(UserError):
        if address := _address(loaded, model, store):
            with mlflow_client(address) as client:
                found |= _recorded(client, loaded, found["digest"], model)
    return found


def _address(loaded: Loaded, model: str, store: Path) -> str | None:
    """MLflow's URI; None if there is none, instead of a new empty store."""
    if loaded.model_id is None and not tracking_address():
        folders = [*Path(model).absolute().parents, store]
        known = next((folder for folder in folders if (folder / "mlflow.db").exists()), None)
        return None if known is None else tracking_uri(known)
    return tracking_uri(store)


def _recorded(client: Any, loaded: Loaded, digest: str, model: str) -> dict[str, Any]:
    logged = client.get_logged_model(loaded.model_id) if loaded.model_id else None
    run = client.get_run(logged.source_run_id) if logged else _run_of(client, digest, model)
    if run is None:
        return {}
    found: dict[str, Any] = {"run_id": run.info.run_id, "images": _images(run)}
    tags = run.data.tags
    if parent := tags.get("mlflow.parentRunId"):
        above = client.get_run(parent)
        found["sweep"] = above.info.run_name
        tags = {**above.data.tags, **tags}
        found["images"] = _images(above) | found["images"]
    found |= {name: tags[tag] for tag, name in _TAGS.items() if tags.get(tag)}
    if logged:
        found |= _registered(client, logged)
    metrics = (_of_model(logged, found["images"]) if logged else []) or _of_run(run, found["images"])
    return found | ({"metrics": metrics} if metrics else {})


def _run_of(client: Any, digest: str, model: str) -> Any:
    """The run of a digest: the one whose sweep a checkpoint lies in, else the latest."""
    everywhere = [each.experiment_id for each in client.search_experiments()]
    runs = pages(client.search_runs, everywhere, f"tags.`bgsweep.digest` = '{digest}'")
    parts = set(Path(model).parts)

    def fits(run: Any) -> tuple[bool, int]:
        parent = run.data.tags.get("mlflow.parentRunId")
        return bool(parent) and client.get_run(parent).info.run_name in parts, run.info.start_time

    return max(runs, key=fits, default=None)


def _registered(client: Any, logged: Any) -> dict[str, Any]:
    """The latest version that was made of a logged model, and why it has its alias."""
    versions = client.search_model_versions(f"run_id = '{logged.source_run_id}'")
    mine = [each for each in versions if str(each.source).endswith(f"/{logged.model_id}")]
    if not mine:
        return {}
    latest = max(mine, key=lambda each: int(each.version))
    named = {"registered": f"models:/{latest.name}/{latest.version}"}
    return named | {key: latest.tags[key] for key in ("reason",) if latest.tags.get(key)}


def _images(run: Any) -> dict[str, dict[str, Any]]:
    """Name, number and digest of the sets that a run has used."""
    found = {}
    for each in run.inputs.dataset_inputs if run.inputs else ():
        context = next((tag.value for tag in each.tags if tag.key == "mlflow.data.context"), "")
        if context in ("train", "validation", "test"):
            profile = json.loads(each.dataset.profile or "{}")
            count = {"count": profile["count"]} if "count" in profile else {}
            found[context] = {"name": each.dataset.name, "digest": digest_of_images(each.dataset.digest), **count}
    return found


def _of_run(run: Any, images: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "value": value, **_count(images.get(name.partition("/")[0]))}
        for name, value in sorted(_measured(run.data.metrics).items())
    ]


def _of_model(logged: Any, images: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The values of a logged model, also those of `bgsweep evaluate`: the last of each name and set of images."""
    in_time = sorted(logged.metrics or (), key=lambda each: each.timestamp)
    last = {(each.key, digest_of_images(each.dataset_digest or "")): each for each in in_time}
    by_digest = {each["digest"]: each for each in images.values()}
    found = {}
    for (key, digest), metric in last.items():
        for name, value in _measured({key: metric.value}).items():
            found[name, digest] = {"name": name, "value": value, **_count(by_digest.get(digest))}
    return [found[key] for key in sorted(found, key=str)]


def _count(images: Mapping[str, Any] | None) -> dict[str, int]:
    return {"count": images["count"]} if images and "count" in images else {}


def _measured(metrics: Mapping[str, float]) -> dict[str, float]:
    """The values on validation and test images, each under its present name."""
    named = {name: value for name, value in with_new_names(metrics).items() if shown_name(name) == name}
    return {name: value for name, value in named.items() if name.startswith(("validation/", "test/"))}
