"""`bgsweep sync`: write to MLflow what a sweep's driver could not, from the journal."""

from pathlib import Path
from typing import Any

from bgsweep.config import resolve
from bgsweep.errors import UserError, without_password
from bgsweep.storage.uri import Uri
from bgsweep.sweep.callbacks import SweepCallback
from bgsweep.sweep.events import replay
from bgsweep.sweep.heartbeat import WATCH, alive
from bgsweep.sweep.journal import Journal, read_journal
from bgsweep.sweep.manifest import find_sweep
from bgsweep.sweep.ownership import Ownership, last_token
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
        with Ownership.claim(folder, store, seen) as owner, StoreSync(folder, store, owner):
            past = read_journal(folder)
            records = replay(past)
            with Tracker(tracking_uri(store), config.name) as tracker:
                parent = tracker.reopen(manifest["parent"])
                journal = Journal(folder, owner, records)
                progress = Progress(name, config, total_trials(config) + confirmations(config))
                monitor = SweepCallback(config, journal, tracker, parent, progress, records)
                epochs = monitor.catch_up(past)
                page = Path(folder, FILE)
                if page.exists():
                    tracker.log_text(parent, page.read_text(encoding="utf-8", errors="surrogateescape"), FILE)
                if not tracker.flush():
                    raise UserError(f"{name}: MLflow did not take everything; run it again")
    return {"sweep": name, "trials": len(records), "epochs": epochs, "tracking_uri": without_password(tracker.address)}
