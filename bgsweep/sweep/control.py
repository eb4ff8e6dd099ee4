"""Looking at a store's sweeps, and ending one, from another shell (or machine) than the driver's."""

from pathlib import Path
from typing import Any, Literal

from bgsweep.errors import UserError
from bgsweep.storage.uri import Uri, sweep_command
from bgsweep.sweep.events import by_number, replay
from bgsweep.sweep.heartbeat import alive, closed_properly
from bgsweep.sweep.journal import read_journal
from bgsweep.sweep.manifest import began, find_sweep, sweeps
from bgsweep.sweep.store import ask_to_stop, local_store

State = Literal["running", "ended", "interrupted", "dead"]


def status(name: str | None, store: Uri) -> dict[str, Any]:
    """One sweep with its trials, or, without a name, all sweeps of the store, the latest first.

    Returns:
        ``sweeps``: each with ``sweep``, ``state``, ``began`` (seconds since 1970) and ``trials``. One whose driver gave
        up (interrupted) or was killed (dead) can be resumed.
    """
    with local_store(store, name) as folder:
        found = sweeps(folder) if name is None else [find_sweep(name, folder)]
        return {"sweeps": [_status(*each) for each in found]}


def stop(name: str, store: Uri) -> dict[str, Any]:
    """Ask a sweep's driver to end its trials and to judge what has come to its end.

    Returns:
        ``sweep``, its name, and ``follow``, the command that shows how far it is.

    Raises:
        UserError: the sweep is not running.
    """
    with local_store(store, name) as place:
        folder, manifest = find_sweep(name, place)
        state = _state(folder, manifest)
        if state != "running":
            cure = f"; `{sweep_command('sweep --resume', name, store)}` goes on with it" if state != "ended" else ""
            raise UserError(f"{name}: the sweep is not running ({state}){cure}")
        ask_to_stop(folder, store)
    return {"sweep": name, "follow": sweep_command("status", name, store)}


def _status(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    records = replay(read_journal(folder))
    return {
        "sweep": folder.name,
        "state": _state(folder, manifest),
        "began": began(folder, manifest),
        "trials": [records[name].public() for name in sorted(records, key=by_number)],
    }


def _state(folder: Path, manifest: dict[str, Any]) -> State:
    if manifest.get("result"):
        return "ended"
    if alive(folder, manifest):
        return "running"
    return "interrupted" if closed_properly(folder) else "dead"
