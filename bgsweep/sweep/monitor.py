"""The driver's own view of the trials: journal, MLflow runs and progress, all written from one place."""

import math
import time
from pathlib import Path
from typing import Any

import ray
from ray.tune import Callback
from ray.tune.experiment import Trial

from bgsweep.config import SweepFile
from bgsweep.sweep.journal import Journal, Status, TrialRecord
from bgsweep.sweep.progress import Progress, shorten
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
        self._runs: dict[str, str] = {}
        self._hangs = Hangs(file.search.hang_minutes)

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune pickles its callbacks into its own state file; ours live in this process only."""
        return Callback, ()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._hangs.end(trials)
        self.progress.update(self.records.values())

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._hangs.moved(self._record(trial).id)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        record = self._record(trial)
        self._hangs.moved(record.id)
        for metrics in result["history"]:
            if metrics["epoch"] > record.epochs:  # a restarted trial repeats the epochs since its checkpoint
                self.tracker.log_metrics(self._runs[record.id], int(metrics["epoch"]), metrics)
        record.checkpoint = result.get("checkpoint") or record.checkpoint
        latest = result["history"][-1]
        if latest["epoch"] <= record.epochs:
            return
        record.epochs = int(latest["epoch"])
        record.metrics = {name: value for name, value in latest.items() if name != "epoch"}
        record.seconds = time.time() - record.began
        record.run_id = record.run_id or self.tracker.run_id(self._runs[record.id], wait=False)
        self.journal.write(
            "result",
            id=record.id,
            run_id=record.run_id,
            epoch=record.epochs,
            metrics=record.metrics,
            seconds=record.seconds,
            checkpoint=record.checkpoint,
        )

    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any) -> None:
        record = self._record(trial)
        record.checkpoint = checkpoint.path
        self.journal.write("checkpoint", id=record.id, path=record.checkpoint)

    def exchanged(self, epoch: int, exchanges: list[dict[str, Any]]) -> None:
        """What trials of a population have taken over from one another at a generation's end."""
        for exchange in exchanges:
            exchange["digest"] = self.file.experiment.with_values(exchange["values"]).digest
        self.journal.write("generation", epoch=epoch, exchanges=exchanges)
        for exchange in exchanges:
            record = self.records[exchange["id"]]
            record.take_over(epoch, exchange)
            lineage = ", ".join(f"{each['donor']} at epoch {each['epoch']}" for each in record.lineage)
            tags = {"bgsweep.lineage": lineage, "bgsweep.digest": record.digest}
            self.tracker.set_tags(self._runs[record.id], tags)
            self.tracker.log_json(self._runs[record.id], record.lineage, "lineage.json")
            self.progress.note(f"{record.id} goes on from {exchange['donor']} at epoch {epoch}: {shorten(record)}")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._record(trial)
        self._failed(record, trial)
        self.progress.note(
            f"{record.id} failed ({record.error}) and goes on from its last checkpoint (failure {record.failures})"
        )
        self.journal.write("recovered", id=record.id, failures=record.failures, error=record.error)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(self._record(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._record(trial)
        self._failed(record, trial)
        self.progress.note(f"{record.id} failed for good: {record.error}")
        self._end(record, "failed")

    def close(self) -> None:
        """End the trials that were running when the whole search was stopped: Tune tells nobody of theirs.

        Afterwards every record has its run's id; what MLflow was away for is waited for.
        """
        for record in self.records.values():
            if record.status == "running":
                self._end(record)
            if not record.run_id:
                if record.id not in self._runs:  # ended before the sweep was resumed, while MLflow was away
                    self._open(record)
                    self._finish(record)
                record.run_id = self.tracker.run_id(self._runs[record.id])
        self.progress.update(self.records.values())

    def _record(self, trial: Any) -> TrialRecord:
        """A trial's record and MLflow run, begun now where Tune speaks of the trial for the first time.

        That may be a failure: its actor's node can die before the trial has started.
        """
        name = trial_name(trial)
        if name in self._runs:
            return self.records[name]
        values, fixed = trial.config[VALUES], trial.config[FIXED]
        known = self.records.get(name)
        if known is None:
            digest = self.file.experiment.with_values(values).digest
            self.records[name] = TrialRecord(name, values, fixed, digest, "")
            self.journal.write("started", trial=self.records[name].public())
        else:  # the sweep itself was resumed
            known.began = time.time() - known.seconds
        self._open(self.records[name])
        return self.records[name]

    def _open(self, record: TrialRecord) -> None:
        # MLflow's parameters cannot change: they are what the trial began with.
        experiment = self.file.experiment.with_values(record.lineage[0]["before"] if record.lineage else record.params)
        seeds = range(experiment.seed, experiment.seed + self.file.search.seeds)
        tags = {"bgsweep.digest": record.digest, "bgsweep.seeds": ", ".join(map(str, seeds))}
        if record.fixed:
            tags["bgsweep.fixed"] = record.fixed
        self._runs[record.id] = self.tracker.trial_run(self.parent, record.id, experiment, tags)

    def _failed(self, record: TrialRecord, trial: Any) -> None:
        record.failures += 1
        record.error = self._hangs.reason(record.id) or _reason(trial)
        self.tracker.set_tags(record.run_id, {"bgsweep.failures": str(record.failures), "bgsweep.error": record.error})

    def _end(self, record: TrialRecord, status: Status | None = None) -> None:
        whole = record.epochs >= self.file.experiment.training.epochs
        record.status = status or ("completed" if whole else "stopped")
        record.run_id = self.tracker.run_id(self._runs[record.id], wait=False)
        self._finish(record)
        self.journal.write("ended", trial=record.public())

    def _finish(self, record: TrialRecord) -> None:
        self.tracker.set_tag(self._runs[record.id], "bgsweep.status", record.status)
        self.tracker.finish(self._runs[record.id], "FAILED" if record.status == "failed" else "FINISHED")


class Hangs:
    """Ends the actors of trials that have not moved for too long, as if they had died; Tune then does as it would.

    Args:
        minutes: time without a result after which a trial hangs; None: none ever does.
    """

    def __init__(self, minutes: float | None) -> None:
        self._minutes = math.inf if minutes is None else minutes
        self._moved: dict[str, float] = {}
        self._reasons: dict[str, str] = {}

    def moved(self, name: str) -> None:
        self._moved[name] = time.monotonic()

    def end(self, trials: list[Any]) -> None:
        for trial in trials:
            if trial.status != Trial.RUNNING or (name := trial_name(trial)) in self._reasons:
                continue
            if time.monotonic() - self._moved[name] > 60 * self._minutes:
                self._reasons[name] = (
                    f"hangs: no result for {self._minutes:g} minutes; if that is too short for evaluate.every epochs, "
                    "raise search.hang_minutes"
                )
                ray.kill(trial.temporary_state.ray_actor)

    def reason(self, name: str) -> str | None:
        """Why a trial that has just failed did, where it was ended here."""
        return self._reasons.pop(name, None)


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
