"""Trials of sweeps as an MLflow experiment has them."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from bgsweep.config.metric_names import with_new_names
from bgsweep.errors import UserError, without_password
from bgsweep.tracking.client import mlflow_client, pages


@dataclass(frozen=True)
class RecordedTrial:
    """A trial that has ended, with its last metrics under all their names.

    ``file`` and ``experiment`` hold its sweep's and its own ``config.yaml``, and are empty where that is missing.
    """

    sweep: str
    trial: str
    status: Literal["completed", "stopped"]
    metrics: Mapping[str, float]
    file: Mapping[str, Any]
    experiment: Mapping[str, Any]


def recorded_trials(address: str, experiment: str) -> list[RecordedTrial]:
    """The completed and stopped trials of an MLflow experiment, in the order of their start.

    Raises:
        UserError: MLflow cannot be reached, or has no such experiment.
    """
    with mlflow_client(address) as client:
        known = client.get_experiment_by_name(experiment)
        if known is None:
            names = ", ".join(sorted(each.name for each in pages(client.search_experiments)))
            raise UserError(
                f"MLflow at {without_password(address)} has no experiment {experiment}; name one of: {names}"
            )
        return list(_ended(client, known.experiment_id))


def _ended(client: Any, experiment: str) -> Iterator[RecordedTrial]:
    @cache
    def sweep(run: str) -> tuple[str, dict[str, Any]]:
        return str(client.get_run(run).info.run_name), _config(client, run)

    runs = pages(client.search_runs, [experiment], "tags.`bgsweep.kind` = 'trial'")
    for run in sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id)):
        tags = run.data.tags
        status = tags.get("bgsweep.status")
        if status in ("completed", "stopped"):
            name, file = sweep(tags["mlflow.parentRunId"])
            own = _config(client, run.info.run_id)
            yield RecordedTrial(name, tags["bgsweep.trial"], status, with_new_names(run.data.metrics), file, own)


def _config(client: Any, run: str) -> dict[str, Any]:
    """The contents of a run's ``config.yaml``; empty if the run has none."""
    if not any(each.path == "config.yaml" for each in client.list_artifacts(run)):
        return {}
    with tempfile.TemporaryDirectory() as folder:
        text = Path(client.download_artifacts(run, "config.yaml", folder)).read_text(encoding="utf-8")
    found = yaml.safe_load(text)
    return found if isinstance(found, dict) else {}
