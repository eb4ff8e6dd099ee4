"""An audit in MLflow, where a tracking URI is set: a run for each encoder, opened before anything is measured."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bgsweep.addresses import tracking_address
from bgsweep.evaluation.audit.outcome import Outcome
from bgsweep.tracking import Tracker
from bgsweep.tracking.datasets import dataset_digest
from bgsweep.tracking.encoders import Loaded
from bgsweep.tracking.kept_run import kept_run

_RUN = "mlflow.json"


class AuditLog:
    """Writes outcomes to an encoder's run as they come; without a tracker it does nothing."""

    def __init__(self, tracker: Tracker | None) -> None:
        self._tracker = tracker
        self._runs: dict[Path, tuple[str, Loaded]] = {}
        self._set: tuple[str, str] = ("", "")

    def open_run(self, folder: Path, model: str, loaded: Loaded, images: Mapping[str, Any]) -> None:
        """Open an encoder's run, or go on with that of an earlier call that kept its results in the same folder."""
        if self._tracker is None:
            return
        digests = images["digests"]["test"]
        self._set = (Path(images["folder"]).name, dataset_digest(digests))
        tracker = self._tracker

        def begin() -> str:
            params = {"model": model, **loaded.origin, "audited": images["audited"], "seed": images["seed"]}
            run = tracker.evaluation_run(f"audit {Path(model).name}", params)
            tracker.log_dataset(run, "test", self._set[0], digests, images["audited"])
            return run

        run = kept_run(tracker, folder / _RUN, begin)
        self._runs[folder] = run, loaded

    def log(self, folder: Path, measure: str, outcome: Outcome) -> None:
        """Queue a measure's values; those that the run has already are not added again, by their time."""
        if self._tracker is None or outcome.found is None:
            return
        run, loaded = self._runs[folder]
        values = {f"test/audit/{measure}/{one.name}": one.value for one in outcome.found.values}
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        self._tracker.log_metrics(run, 0, values, loaded.model_id, self._set, at=outcome.at)

    def finish(self, record: Mapping[str, Any], page: str) -> None:
        """Queue the page and its numbers, to all runs."""
        for run, _ in self._runs.values():
            assert self._tracker is not None
            self._tracker.log_text(run, page, "audit.html")
            self._tracker.log_json(run, record, "audit.json")


@contextmanager
def audit_log() -> Iterator[AuditLog]:
    """A log into MLflow at MLFLOW_TRACKING_URI, if that is set.

    Raises:
        UserError: it is set, and MLflow is unreachable.
    """
    address = tracking_address()
    if not address:
        yield AuditLog(None)
        return
    with Tracker(address) as tracker:
        yield AuditLog(tracker)
