"""The driver's own view of the trials: journal, MLflow runs and progress, all written from one place."""

import time
from pathlib import Path
from typing import Any

from ray.tune import Callback

from bgsweep.config import SweepFile
from bgsweep.places import uri_of
from bgsweep.sweep.journal import Journal, Status, TrialRecord
from bgsweep.sweep.progress import Progress
from bgsweep.sweep.proposals import FIXED, VALUES, trial_name
from bgsweep.tracking import Tracker


class Monitor(Callback):
    """Turns Tune's events into records.

    A trial that the scheduler stops never runs code of its own again, so that its MLflow run must be closed from here.
    """

    def __init__(
        self,
        file: SweepFile,
        journal: Journal,
        tracker: Tracker,
        parent: str,
        progress: Progress,
        records: dict[str, TrialRecord],
    ) -> None:
        self.file = file
        self.journal = journal
        self.tracker = tracker
        self.parent = parent
        self.progress = progress
        self.records = records
        self._begun: set[str] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune pickles its callbacks into its own state file; ours live in this process only."""
        return Callback, ()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.progress.update(self.records.values())

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        name = trial_name(trial)
        if name in self._begun:
            return  # a restart after a failure
        self._begun.add(name)
        values, fixed = trial.config[VALUES], trial.config[FIXED]
        experiment = self.file.experiment.with_values(values)
        tags = {"bgsweep.fixed": fixed} if fixed else {}
        run = self.tracker.trial_run(self.parent, name, experiment, tags)
        known = self.records.get(name)
        if known is not None:  # the sweep itself was resumed
            known.began = time.time() - known.seconds
            return
        record = TrialRecord(name, values, fixed, experiment.digest, run)
        self.records[name] = record
        self.journal.write("started", trial=record.public())

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        record = self.records[trial_name(trial)]
        for metrics in result["history"]:
            if metrics["epoch"] > record.epochs:  # a restarted trial repeats the epochs since its checkpoint
                self.tracker.log_metrics(record.run_id, int(metrics["epoch"]), metrics)
        record.checkpoint = result.get("checkpoint") or record.checkpoint
        latest = result["history"][-1]
        if latest["epoch"] <= record.epochs:
            return
        record.epochs = int(latest["epoch"])
        record.metrics = {name: value for name, value in latest.items() if name != "epoch"}
        record.seconds = time.time() - record.began
        self.journal.write(
            "result",
            id=record.id,
            epoch=record.epochs,
            metrics=record.metrics,
            seconds=record.seconds,
            checkpoint=record.checkpoint,
        )

    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any) -> None:
        record = self.records[trial_name(trial)]
        record.checkpoint = uri_of(checkpoint.path, checkpoint.filesystem)
        self.journal.write("checkpoint", id=record.id, path=record.checkpoint)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self.records[trial_name(trial)]
        record.failures += 1
        record.error = _reason(trial)
        self.progress.note(
            f"{record.id} failed ({record.error}) and goes on from its last checkpoint (failure {record.failures})"
        )
        self.journal.write("recovered", id=record.id, failures=record.failures, error=record.error)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(self.records[trial_name(trial)])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self.records[trial_name(trial)]
        record.error = _reason(trial)
        self.tracker.set_tag(record.run_id, "bgsweep.error", record.error)
        self.progress.note(f"{record.id} failed for good: {record.error}")
        self._end(record, "failed")

    def close(self) -> None:
        """End the trials that were running when the whole search was stopped: Tune tells nobody of theirs."""
        for record in self.records.values():
            if record.status == "running":
                self._end(record)
        self.progress.update(self.records.values())

    def _end(self, record: TrialRecord, status: Status | None = None) -> None:
        whole = record.epochs >= self.file.experiment.training.epochs
        record.status = status = status or ("completed" if whole else "stopped")
        self.tracker.set_tag(record.run_id, "bgsweep.status", status)
        self.tracker.finish(record.run_id, "FAILED" if status == "failed" else "FINISHED")
        self.journal.write("ended", trial=record.public())


def _reason(trial: Any) -> str:
    """One line of what a trial left of its last failure: the exception without its module, or how its actor died.

    Read from Tune's text file: unpickling the exception could bring torch into the driver.
    """
    path = trial.error_file
    text = Path(path).read_text(encoding="utf-8") if path else "no reason is known"
    lines = [line.strip() for line in text.rpartition("(occurred at ")[2].splitlines()[1:] if line.strip()]
    if not lines:
        return text.strip()
    line = lines[-1] if "ray::" in lines[0] else lines[0]  # a traceback, else a story of how the actor died
    name, colon, message = line.partition(": ")
    return message if name.endswith("UserError") else f"{name.rpartition('.')[2]}{colon}{message}"
