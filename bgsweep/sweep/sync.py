"""`bgsweep sync`: write to MLflow what a sweep's driver could not, from the journal."""

import contextlib
from pathlib import Path
from typing import Any

from bgsweep.config import resolve
from bgsweep.errors import UserError, without_password
from bgsweep.storage.uri import Uri
from bgsweep.sweep.callbacks import SweepCallback
from bgsweep.sweep.events import Event, replay
from bgsweep.sweep.heartbeat import WATCH, Heartbeat, alive
from bgsweep.sweep.journal import Journal, read_journal
from bgsweep.sweep.manifest import find_sweep
from bgsweep.sweep.ownership import Ownership, SweepTaken, last_token
from bgsweep.sweep.progress import Progress
from bgsweep.sweep.report import FILE
from bgsweep.sweep.searcher import total_trials
from bgsweep.sweep.selection import confirmations
from bgsweep.sweep.store import StoreSync, local_store, pulse_reader
from bgsweep.tracking import Tracker, tracking_uri


def sync(name: str, store: Uri) -> dict[str, Any]:
    """Write the runs, epochs and ends of a sweep's trials that MLflow lacks.

    Returns:
        ``sweep``, ``trials``, ``epochs`` (how many were missing) and ``tracking_uri``.

    Raises:
        UserError: there is no such sweep, it is running, or MLflow does not know its run.
    """
    with local_store(store, name) as local:
        folder, manifest = find_sweep(name, local)
        seen = last_token(folder)
        if alive(folder, manifest, pulse_reader(folder, store), WATCH):
            raise UserError(
                f"{name}: its driver writes to MLflow by itself while the sweep is running; try again when it has ended"
            )
        config = resolve(manifest["file"], (), name)
        with (
            Ownership.claim(folder, store, seen) as owner,
            StoreSync(folder, store, owner),
            Heartbeat(folder, owner.token),  # else a driver that resumes the sweep meanwhile would be let in
            Tracker(tracking_uri(store), config.name) as tracker,
        ):
            past = read_journal(folder)
            records = replay(past)
            progress = Progress(name, config, total_trials(config) + confirmations(config))
            journal = Journal(folder, owner, records)
            monitor = SweepCallback(config, journal, tracker, manifest["parent"], progress, records)
            epochs = _write(monitor, past)
            try:
                with contextlib.suppress(OSError):  # a bucket that does not answer
                    owner.look()
            except SweepTaken:
                tracker.abandon()  # the trials' runs are those of the other driver, which goes on with them
                raise
            _end(tracker, manifest["parent"], over=bool(manifest.get("result")))
    return {"sweep": name, "trials": len(records), "epochs": epochs, "tracking_uri": without_password(tracker.address)}


def _write(monitor: SweepCallback, past: list[Event]) -> int:
    """Write what MLflow lacks; give the number of missing epochs."""
    tracker, parent, folder = monitor.tracker, monitor.parent, monitor.journal.folder
    tracker.ask(lambda: tracker.client.get_run(parent))  # one that MLflow does not know is told at once
    epochs = monitor.catch_up(past)
    page = Path(folder, FILE)
    if page.exists():
        tracker.log_text(parent, page.read_text(encoding="utf-8", errors="surrogateescape"), FILE)
    if not tracker.flush():
        raise UserError(f"{folder.name}: MLflow did not take everything; run it again")
    return epochs


def _end(tracker: Tracker, parent: str, over: bool) -> None:
    """End the sweep's run as the sweep has ended; that of an interrupted or failed one says so already."""
    status = tracker.ask(lambda: tracker.client.get_run(parent)).info.status
    if over and status != "FINISHED":
        tracker.finish(parent, "FINISHED")
    elif not over and status == "RUNNING":  # of a driver that was killed on another machine
        tracker.finish(parent, "KILLED")
