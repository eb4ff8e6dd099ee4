"""A sweep in Ray's dashboard: names of its placement groups, metrics of its trials, and the job's link to MLflow."""

import contextlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

import ray
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put
from ray.util.metrics import Gauge

# Ray gives the driver of a submitted job these settings, and keeps what is known of the job under this key.
_SETTINGS, _ENTRY, _NAMESPACE = "RAY_JOB_CONFIG_JSON_ENV_VAR", "_ray_internal_job_info_{}", "job"


def unique(name: str) -> str:
    """A name for a placement group: Ray never places a second one of the same name."""
    return f"{name} {secrets.token_hex(3)}"


def tell_job(**metadata: str) -> None:
    """Add to the metadata of the job that this process is, if it is one; they are on the job's page.

    Ray has no call for it after the submission, when the sweep's MLflow run does not exist yet.
    """
    with contextlib.suppress(ValueError, KeyError, TypeError):
        job = json.loads(os.environ.get(_SETTINGS, ""))["metadata"]["job_submission_id"]
        key = _ENTRY.format(job).encode()
        known = json.loads(_internal_kv_get(key, namespace=_NAMESPACE))
        known["metadata"] = (known.get("metadata") or {}) | metadata
        _internal_kv_put(key, json.dumps(known).encode(), overwrite=True, namespace=_NAMESPACE)


class SweepMetrics:
    """The trials of a sweep as metrics that Ray exports to Prometheus, on the metrics port of the driver's node.

    ``ray_bgsweep_trials`` counts them by ``status``; ``ray_bgsweep_trial_epoch`` and ``ray_bgsweep_trial`` have the
    last epoch of each trial, and its values by ``metric``.
    """

    def __init__(self, sweep: str) -> None:
        self._sweep = sweep
        self._told: dict[str, int] = {}
        self._trials = _gauge("bgsweep_trials", "Trials of a sweep by status.", "status")
        self._epoch = _gauge("bgsweep_trial_epoch", "Last epoch that a trial has reported.", "trial")
        self._values = _gauge("bgsweep_trial", "Last values that a trial has reported.", "trial", "metric")

    def update(self, records: Iterable[Any]) -> None:
        """Tell what has changed of trials' records."""
        if not ray.is_initialized():
            return
        counts = dict.fromkeys(("running", "completed", "stopped", "failed"), 0)
        for record in records:
            counts[record.status] += 1
            if self._told.get(record.id) != record.epochs:
                self._told[record.id] = record.epochs
                self._set(self._epoch, record.epochs, trial=record.id)
                self._set_all(record.id, record.metrics)
        for status, count in counts.items():
            self._set(self._trials, count, status=status)

    def _set_all(self, trial: str, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._set(self._values, value, trial=trial, metric=name)

    def _set(self, gauge: Gauge, value: float, **tags: str) -> None:
        gauge.set(value, {"sweep": self._sweep, **tags})


def _gauge(name: str, description: str, *tags: str) -> Gauge:
    return Gauge(name, description, ("sweep", *tags))
