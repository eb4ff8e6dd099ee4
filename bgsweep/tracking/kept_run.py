"""The MLflow run of what may be continued by a later call, remembered in a file."""

import json
from collections.abc import Callable
from pathlib import Path

from bgsweep.errors import UserError, without_password
from bgsweep.storage.atomic import write_whole
from bgsweep.tracking.tracker import Tracker


def kept_run(tracker: Tracker, file: Path | None, begin: Callable[[], str]) -> str:
    """Reopen the run that an earlier call began and remembered in a file; else begin one and remember it."""
    if file is None:
        return begin()
    address = without_password(tracker.address)
    try:
        known = json.loads(file.read_bytes())
        if known["address"] == address:
            return tracker.reopen(known["run"])
    except (OSError, ValueError, KeyError, UserError):  # none, damaged, or deleted in MLflow
        pass
    run = begin()
    write_whole(file, json.dumps({"address": address, "run": run}).encode())
    return run
