"""Looking at a store's sweeps, and ending one, from another shell (or machine) than the driver's."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from bgsweep.errors import UserError
from bgsweep.sweep.journal import alive, find_sweep, fold, read_journal, stop_file, sweep_names

State = Literal["running", "ended", "dead"]


def status(name: str | None, store: Path) -> dict[str, Any]:
    """One sweep with its trials, or, without a name, all sweeps of the store, the latest first.

    Returns:
        ``sweeps``: each with ``sweep``, ``state`` (dead: its driver is gone and it can be resumed) and ``trials``.
    """
    names: Iterable[str] = sweep_names(store) if name is None else [name]
    return {"sweeps": [_status(*find_sweep(each, store)) for each in names]}


def stop(name: str, store: Path) -> dict[str, Any]:
    """Ask a sweep's driver to end its trials and to judge what has come to its end.

    Raises:
        UserError: the sweep is not running.
    """
    folder, manifest = find_sweep(name, store)
    state = _state(folder, manifest)
    if state != "running":
        cure = f"; `bgsweep sweep --resume {name}` goes on with it" if state == "dead" else ""
        raise UserError(f"{name}: the sweep is not running ({state}){cure}")
    stop_file(folder).touch()
    return {"sweep": name}


def _status(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    records = fold(read_journal(folder))
    return {
        "sweep": folder.name,
        "state": _state(folder, manifest),
        "trials": [records[name].public() for name in sorted(records)],
    }


def _state(folder: Path, manifest: dict[str, Any]) -> State:
    if manifest.get("result"):
        return "ended"
    return "running" if alive(folder, manifest) else "dead"
