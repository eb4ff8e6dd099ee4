"""Status of a store's sweeps, and stopping one, from another shell or machine than the driver's."""

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
    """The status of one sweep, or without a name of all sweeps of the store, the latest first.

    Returns:
        ``sweeps``: each with ``sweep``, ``state``, ``began`` (seconds since 1970) and ``trials``. A sweep whose driver
        ended with an error (interrupted) or was killed (dead) can be resumed.
    """
    with local_store(store, name) as folder:
        found = sweeps(folder) if name is None else [find_sweep(name, folder)]
        return {"sweeps": [_status(*each) for each in found]}


def stop(name: str, store: Uri) -> dict[str, Any]:
    """Stop a sweep and evaluate its finished trials: its driver is asked to.

    Returns:
        ``sweep``, its name, and ``follow``, the command that shows its status.

    Raises:
        UserError: the sweep is not running.
    """
    with local_store(store, name) as local:
        folder, manifest = find_sweep(name, local)
        state = _state(folder, manifest)
        if state != "running":
            cure = f"; `{sweep_command('sweep --resume', name, store)}` resumes it" if state != "ended" else ""
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
