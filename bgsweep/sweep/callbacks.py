"""Ray Tune's callback in the driver: writes the journal, the MLflow runs and the progress of all trials."""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.tune import Callback

from bgsweep.config import SweepConfig
from bgsweep.distributed.dashboard import SweepMetrics
from bgsweep.distributed.orphaned_groups import OrphanedGroups
from bgsweep.distributed.trial_board import Beat, BoardReader
from bgsweep.errors import WorkersFailed
from bgsweep.storage.uri import uri_of
from bgsweep.sweep.collect import Collector
from bgsweep.sweep.early_checkpoints import EarlyCheckpoints
from bgsweep.sweep.events import Checkpointed, Ended, Event, Generation, Recovered, Result, Started, Waits, replay
from bgsweep.sweep.guards import DiskGuard, HangGuard
from bgsweep.sweep.journal import Journal
from bgsweep.sweep.overview import Overview
from bgsweep.sweep.progress import Progress, shorten
from bgsweep.sweep.searcher import FIXED, NUMBER, VALUES, name_of, trial_name
from bgsweep.sweep.selection import seeds_of
from bgsweep.sweep.trial_record import Exchange, Status, TrialRecord
from bgsweep.tracking import Tracker


class SweepCallback(Callback):
    """Turns Tune's events into the journal's.

    The driver writes all MLflow runs: a trial that the scheduler stops never runs code of its own again, which could
    close its run.
    """

    def __init__(
        self,
        config: SweepConfig,
        journal: Journal,
        tracker: Tracker,
        parent: str,
        progress: Progress,
        records: dict[str, TrialRecord],
        collector: Collector | None = None,
        board: BoardReader | None = None,
    ) -> None:
        self.config = config
        self.journal = journal
        self.tracker = tracker
        self.parent = parent
        self.progress = progress
        self.records = records
        self.collector = collector
        self.overview = Overview(config, tracker, parent, journal.folder.name)
        self._board = board
        self._runs: dict[str, str] = {}
        self._waits: dict[str, str] = {}
        self._failed_at: dict[str, int] = {}  # the epochs that each trial had reported when it failed last
        self._spent: dict[str, float] = {}  # seconds of trials that have failed, with those of lost epochs
        self.disk = DiskGuard(journal.folder)
        self._hangs = HangGuard(config.search.hang_minutes)
        self.early = EarlyCheckpoints(drains=config.experiment.workers.count == 1)
        self._metrics = SweepMetrics(journal.folder.name)
        self._orphaned = OrphanedGroups() if config.experiment.workers.count > 1 else None

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune pickles its callbacks into its own state file; ours live in this process only."""
        return Callback, ()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.disk.look()
        if self._board and (beats := self._board.look(self.early.requests)) is not None:
            self._hangs.look(trials, beats)
            self.early.look(trials, beats)
            self._tell_waits(beats)
            self._metrics.update(self.records.values())
            if self._orphaned:
                self._orphaned.look()
        if self.collector:
            self.collector.look(self.records)
        self.progress.update(self.records.values())

    def _tell_waits(self, beats: Mapping[str, Beat]) -> None:
        """Record which trials wait for nodes; each of their lines is shown."""
        for name, beat in beats.items():
            record = self.records.get(name)
            if record is None or record.status != "running" or beat.waiting == self._waits.get(name, ""):
                continue
            self._waits[name] = beat.waiting
            if beat.waiting:
                self.progress.note(f"{name} is {beat.waiting}")
            if bool(beat.waiting) != bool(record.waiting):
                self.journal.write(Waits(id=name, reason=beat.waiting)).apply(record)
                self.tracker.set_tag(self._runs[name], "bgsweep.waiting", beat.waiting)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._record(trial)
        self._hangs.started(record.id)
        record.began = time.time() - self._spent.pop(record.id, record.seconds)  # a wait for a place does not count

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        record = self._record(trial)
        self._hangs.moved(record.id)
        self.progress.warn(result.get("warnings", ()))
        # A restarted trial reports the epochs since its checkpoint a second time.
        fresh = [metrics for metrics in result["history"] if metrics["epoch"] > record.epochs]
        moved = result.get("checkpoint") if result.get("checkpoint") != record.checkpoint else None
        if moved:
            self.early.written(record.id)
        if not fresh:
            if moved:
                self._checkpointed(record, moved)
            return
        latest = fresh[-1]
        event = Result(
            id=record.id,
            run_id="" if record.run_id else self.tracker.run_id(self._runs[record.id], wait=False),
            epoch=int(latest["epoch"]),
            metrics={name: value for name, value in latest.items() if name != "epoch"},
            history=fresh,
            seconds=time.time() - record.began,
            checkpoint=moved,
        )
        self._refill(record, trial, event.epoch)
        event.apply(record)
        self.journal.write(event)  # first: where another driver has taken the sweep over, it writes the MLflow runs too
        for metrics in fresh:
            self.tracker.log_metrics(self._runs[record.id], int(metrics["epoch"]), metrics)
        self.overview.result(event)

    def _refill(self, record: TrialRecord, trial: Any, epoch: int) -> None:
        """Give a trial its restarts back once it has got far enough beyond its last failure."""
        refill, since = self.config.search.refill_epochs, self._failed_at.get(record.id)
        if refill is not None and since is not None and epoch - since >= refill:
            del self._failed_at[record.id]
            trial.run_metadata.num_failures, trial.max_failures = 0, self.config.search.max_failures

    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any) -> None:
        record = self._record(trial)
        self._checkpointed(record, uri_of(checkpoint.path, checkpoint.filesystem))
        self.early.written(record.id)

    def _checkpointed(self, record: TrialRecord, path: str) -> None:
        event = Checkpointed(id=record.id, path=path)
        event.apply(record)
        self.journal.write(event)

    def exchanged(self, epoch: int, exchanges: Sequence[Exchange]) -> None:
        """Record what the trials of a population take over from one another at a generation's end."""
        whole = [replace(one, digest=self.config.experiment.with_values(one.values).digest) for one in exchanges]
        self.journal.write(Generation(epoch=epoch, exchanges=whole)).apply(self.records)
        for exchange in whole:
            record = self.records[exchange.id]
            self._tell_lineage(record)
            self.progress.note(f"{record.id} continues from {exchange.donor} at epoch {epoch}: {shorten(record)}")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._record(trial)
        self._spent[record.id] = time.time() - record.began
        self._failed(record, trial)
        if _is_ours(trial):  # the data or the values are at fault: one more try shows whether for good
            trial.max_failures = trial.run_metadata.num_failures
        self.progress.note(
            f"{record.id} failed ({record.error}) and continues from its last checkpoint (failure {record.failures})"
        )
        self.journal.write(Recovered(id=record.id, failures=record.failures, error=record.error))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.end(self._record(trial).id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._record(trial)
        self._failed(record, trial)
        if self.disk.full:  # the trial continues when the sweep is resumed
            return
        self.progress.note(f"{record.id} failed for good: {record.error}")
        self.end(record.id, "failed")

    def catch_up(self, past: Iterable[Event]) -> int:
        """Open the MLflow runs of a resumed sweep, and log to them the epochs that the last driver could not.

        Trials that have ended keep the time of their end, by the journal.

        Returns:
            How many epochs those are.
        """
        missing, past = 0, list(past)
        began = {each.trial.id: _milliseconds(each) for each in past if isinstance(each, Started)}
        ended = {each.trial.id: _milliseconds(each) for each in past if isinstance(each, Ended)}
        for record in self.records.values():
            if record.run_id and record.status != "running":
                self._runs[record.id] = record.run_id
            else:
                self._open(record, began.get(record.id))
        logged = {name: self.tracker.last_epoch(run) for name, run in self._runs.items()}
        best_until = self.overview.last_step() if self.records else 0

        def log(event: Result, _: TrialRecord) -> None:
            nonlocal missing
            self.overview.result(event, best_until)
            for metrics in event.history:
                if metrics["epoch"] > logged[event.id]:
                    missing += 1
                    self.tracker.log_metrics(self._runs[event.id], int(metrics["epoch"]), metrics)

        replay(past, on_result=log)
        for record in self.records.values():
            if record.status != "running":
                self._close_run(record, ended.get(record.id))
        return missing

    def close(self) -> None:
        """End the trials that were running when the whole search was stopped, of which Tune calls nothing.

        Afterwards every record has the id of its MLflow run, for which an unreachable server is waited for.
        """
        for record in self.records.values():
            if record.status == "running":
                self.end(record.id)
            record.run_id = record.run_id or self.tracker.run_id(self._runs[record.id])
        self.progress.update(self.records.values())
        self._metrics.update(self.records.values())

    def _record(self, trial: Any) -> TrialRecord:
        """A trial's record; it and the MLflow run are made at Tune's first event of the trial.

        That event may be a failure: the node of its actor can die before the trial has started.
        """
        name = trial_name(trial)
        if name in self._runs:
            return self.records[name]
        digest = self.config.experiment.with_values(trial.config[VALUES]).digest
        return self._begin(TrialRecord(name, trial.config[VALUES], trial.config[FIXED], digest, ""))

    def _begin(self, record: TrialRecord) -> TrialRecord:
        self.records[record.id] = record
        self._open(record)
        self.journal.write(Started(trial=record.copy()))
        return record

    def refuse(self, config: dict[str, Any], reason: str) -> None:
        """Record a proposal that cannot be trained as a failed trial."""
        name = name_of(config[NUMBER])
        record = self.records.get(name) or self._begin(TrialRecord(name, config[VALUES], config[FIXED], "", ""))
        record.error = f"its values cannot be combined: {reason}"
        self.tracker.set_tag(self._runs[name], "bgsweep.error", record.error)
        self.progress.note(f"{name} failed for good: {record.error}")
        self.end(name, "failed")

    def _open(self, record: TrialRecord, at: int | None = None) -> None:
        # MLflow's parameters cannot change: they are what the trial began with.
        values = record.lineage[0]["before"] if record.lineage else record.params
        valid = not self.config.refusal(values)
        experiment = self.config.experiment.with_values(values) if valid else self.config.experiment
        seeds = range(experiment.seed, experiment.seed + seeds_of(self.config, record.id))
        tags = {"bgsweep.digest": record.digest, "bgsweep.seeds": ", ".join(map(str, seeds))}
        if record.fixed:
            tags["bgsweep.fixed"] = record.fixed
        self._runs[record.id] = self.tracker.trial_run(self.parent, record.id, experiment, tags, values, at)
        if record.lineage:
            self._tell_lineage(record)

    def _tell_lineage(self, record: TrialRecord) -> None:
        lineage = ", ".join(f"{each['donor']} at epoch {each['epoch']}" for each in record.lineage)
        tags = {"bgsweep.lineage": lineage, "bgsweep.digest": record.digest}
        self.tracker.set_tags(self._runs[record.id], tags)
        self.tracker.log_json(self._runs[record.id], record.lineage, "lineage.json")

    def _failed(self, record: TrialRecord, trial: Any) -> None:
        record.failures, record.waiting = record.failures + 1, ""
        self._failed_at[record.id] = record.epochs
        record.error = self._hangs.reason(record.id) or reason_of(trial)
        self.disk.learn(record.error)
        told = {"bgsweep.failures": str(record.failures), "bgsweep.error": record.error}
        self.tracker.set_tags(self._runs[record.id], told)

    def end(self, name: str, status: Status | None = None) -> Ended:
        """Close a trial's record and MLflow run; give the journal's event."""
        record = self.records[name]
        whole = record.epochs >= self.config.experiment.training.epochs
        record.status, record.waiting = status or ("completed" if whole else "stopped"), ""
        record.run_id = self.tracker.run_id(self._runs[record.id], wait=False)
        self._close_run(record)
        self.overview.trial_ended(self.records)
        return self.journal.write(Ended(trial=record.copy()))

    def _close_run(self, record: TrialRecord, at: int | None = None) -> None:
        self.tracker.set_tag(self._runs[record.id], "bgsweep.status", record.status)
        self.tracker.finish(self._runs[record.id], "FAILED" if record.status == "failed" else "FINISHED", at)


def _milliseconds(event: Event) -> int:
    """An event's time as MLflow counts it."""
    return round(1000 * event.time)


def reason_of(trial: Any) -> str:
    """One line of what a trial left of its last failure: the exception without its module, or how its actor died."""
    text, lines = _last_failure(trial)
    if not lines:
        return text.strip()
    last = re.split(r" (?:Some common causes|Potential causes) include", lines[-1])[0]
    name, colon, message = last.partition(": ")
    if "ray::" not in lines[0] or not re.fullmatch(r"[\w.]+", name):  # no exception's name, but a story or its end
        return last
    return message if name.endswith(("UserError", "WorkersFailed")) else f"{name.rpartition('.')[2]}{colon}{message}"


def _is_ours(trial: Any) -> bool:
    """True if a trial's last failure is a `UserError` of its data or values."""
    _, lines = _last_failure(trial)
    ours = bool(lines) and "ray::" in lines[0] and lines[-1].startswith("bgsweep.")
    return ours and not lines[-1].startswith(f"bgsweep.errors.{WorkersFailed.__name__}")


def diverged(trial: Any) -> bool:
    """True if a trial's last failure is `bgsweep.training.trainer.Diverged`."""
    _, lines = _last_failure(trial)
    return bool(lines) and lines[-1].startswith("bgsweep.training.trainer.Diverged")


def _last_failure(trial: Any) -> tuple[str, list[str]]:
    """All that Tune has written of a trial's failures, and the lines of the last one.

    Read from Tune's text file: unpickling the exception could bring torch into the driver.
    """
    path = trial.error_file
    text = Path(path).read_text(encoding="utf-8") if path else "unknown reason"
    return text, [line.strip() for line in text.rpartition("(occurred at ")[2].splitlines()[1:] if line.strip()]
