"""Status of a store's sweeps, and stopping one, from another shell or machine than the driver's."""

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import zstandard

from bgsweep.errors import UserError, one_line
from bgsweep.storage.layout import sweep_folder
from bgsweep.storage.uri import Uri, is_remote, sweep_command
from bgsweep.sweep import budget
from bgsweep.sweep.budget import seconds_of
from bgsweep.sweep.heartbeat import alive, closed_properly
from bgsweep.sweep.journal import read_journal, read_records
from bgsweep.sweep.manifest import began, find_sweep, sweeps
from bgsweep.sweep.store import ask_to_stop, local_store, pulse_reader
from bgsweep.sweep.trial_names import by_number
from bgsweep.sweep.trial_record import TrialRecord

_log = logging.getLogger(__name__)

State = Literal["running", "ended", "interrupted", "dead"]


def status(name: str | None, store: Uri) -> dict[str, Any]:
    """The status of one sweep, or without a name of all sweeps of the store, the latest first.

    Returns:
        ``sweeps``: each with ``sweep``, ``state``, ``began`` (seconds since 1970), ``trials`` and ``budget``
        (``limits``, what is ``spent`` of each, and both ``told`` as text; None without a budget). A sweep whose driver
        ended with an error (interrupted) or was killed (dead) can be resumed.
    """
    with local_store(store, name, "state") as folder:
        if name is not None:
            return {"sweeps": [_status(*find_sweep(name, folder), store)]}
        found = sweeps(folder)
        # At once: of each sweep on another machine the heartbeat is watched for some seconds.
        with ThreadPoolExecutor(max(1, min(32, len(found)))) as pool:
            listed = list(pool.map(lambda each: _status_or_warning(each[0], each[1], store), found))
        return {"sweeps": [one for one in listed if one]}


def stop(name: str, store: Uri) -> dict[str, Any]:
    """Stop a sweep and evaluate its finished trials: its driver is asked to.

    Returns:
        ``sweep``, its name, and ``follow``, the command that shows its status.

    Raises:
        UserError: the sweep is not running.
    """
    with local_store(store, name, "signs") as local:
        folder, manifest = find_sweep(name, local)
        state = _state(folder, manifest, store)
        if state != "running":
            cure = f"; `{sweep_command('sweep --resume', name, store)}` resumes it" if state != "ended" else ""
            raise UserError(f"{name}: the sweep is not running ({state}){cure}")
        ask_to_stop(folder, store)
    return {"sweep": name, "follow": sweep_command("status", name, store)}


def _status(folder: Path, manifest: dict[str, Any], store: Uri) -> dict[str, Any]:
    records, state = read_records(folder), _state(folder, manifest, store)
    return {
        "sweep": folder.name,
        "state": state,
        "began": began(folder, manifest),
        "trials": [records[name].shown() for name in sorted(records, key=by_number)],
        "budget": _budget(folder, manifest, records, state, store),
    }


def _budget(
    folder: Path, manifest: dict[str, Any], records: dict[str, TrialRecord], state: State, store: Uri
) -> dict[str, Any] | None:
    if "budget" not in manifest:  # of an older version
        return None
    # A driver that is dead does not say when it died; its journal does.
    seconds = None if state == "running" else partial(_seconds, folder, store)
    return budget.status(manifest, seconds, records.values())


def _seconds(folder: Path, store: Uri) -> float:
    """Seconds for which a sweep's drivers have run, from its whole journal, whose end alone may be in ``folder``."""
    if not is_remote(store):
        return seconds_of(read_journal(folder))
    with local_store(store, folder.name) as whole:
        return seconds_of(read_journal(Path(sweep_folder(whole, folder.name))))


def _status_or_warning(folder: Path, manifest: dict[str, Any], store: Uri) -> dict[str, Any] | None:
    try:
        return _status(folder, manifest, store)
    except (UserError, OSError, ValueError, KeyError, TypeError, zstandard.ZstdError) as error:
        _log.warning("left out: %s: its journal cannot be read: %s", folder, one_line(error))
        return None


def _state(folder: Path, manifest: dict[str, Any], store: Uri) -> State:
    if manifest.get("result"):
        return "ended"
    if alive(folder, manifest, pulse_reader(folder, store)):
        return "running"
    return "interrupted" if closed_properly(folder) else "dead"
