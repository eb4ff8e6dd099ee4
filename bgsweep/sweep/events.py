"""What a sweep leaves on disk, so that it outlives its driver: what it is, what happened, and that it is alive."""

import difflib
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from bgsweep.config.base import NAME_PATTERN
from bgsweep.errors import UserError, one_line
from bgsweep.tracking.provenance import owner_lives

Status = Literal["running", "completed", "stopped", "failed"]
Event = dict[str, Any]

_MANIFEST, _JOURNAL, _PULSE, _STOP = "sweep.json", "journal.jsonl", "pulse", "stop"
CARRIED = (_MANIFEST, _JOURNAL, _PULSE)  # what a store on another machine needs of them
_BEAT, _DEAD_AFTER = 5.0, 60.0  # seconds
_SAID = {"file", "digest", "parent", "owner"}  # by every manifest
_OWNER = {"bgsweep.host", "bgsweep.pid", "bgsweep.born"}
_TOLD = {
    "proposed": {"id"},
    "started": {"trial"},
    "ended": {"trial"},
    "result": {"id", "epoch", "metrics", "seconds", "checkpoint"},
    "checkpoint": {"id", "path"},
    "recovered": {"id", "failures", "error"},
    "generation": {"epoch", "exchanges"},
}

_log = logging.getLogger(__name__)


@dataclass
class TrialRecord:
    """One trial: what it was asked to do, how far it came, what it measured last, and its MLflow run."""

    id: str
    params: dict[str, Any]
    fixed: str | None
    digest: str
    run_id: str
    status: Status = "running"
    epochs: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    checkpoint: str | None = None
    failures: int = 0
    error: str | None = None
    seconds: float = 0.0
    began: float = field(default_factory=time.time)
    lineage: list[dict[str, Any]] = field(default_factory=list)

    def take_over(self, epoch: int, exchange: dict[str, Any]) -> None:
        """Note what it goes on with from a generation's end on: another trial's weights, and its own new values."""
        step = {"epoch": epoch, "donor": exchange["donor"], "before": self.params, "params": exchange["values"]}
        self.lineage.append(step)
        self.params, self.digest, self.checkpoint = exchange["values"], exchange["digest"], exchange["checkpoint"]

    def public(self) -> dict[str, Any]:
        """The form in which ``--json`` and the journal show it."""
        shown = asdict(self)
        del shown["began"]
        return shown


class Journal:
    """Appends each change of a trial as one JSON line; a killed driver may leave a torn last one, which is harmless."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        path = folder / _JOURNAL
        torn = path.exists() and not path.read_bytes().endswith(b"\n")
        self._file = path.open("a", encoding="utf-8")
        if torn:
            self._file.write("\n")

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune pickles the searcher, which holds this, into its own state file; nothing reads that."""
        return type(None), ()

    def write(self, event: str, **values: Any) -> Event:
        written = {"time": time.time(), "event": event, **values}
        self._file.write(json.dumps(written) + "\n")
        self._file.flush()
        return written


class Heartbeat:
    """A context in which a file in the sweep's folder is touched every few seconds."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _PULSE
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def __enter__(self) -> Self:
        self._path.touch()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._over.wait(_BEAT):
            self._path.touch()


_MEND = "move that folder out of the store, or restore the file"


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Say, whole or not at all, what the sweep in a folder is."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{_MANIFEST}"
    draft.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    draft.replace(folder / _MANIFEST)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What the sweep in a folder is; None where there is none.

    Raises:
        UserError: it cannot be read, or it is no sweep of bgsweep.
    """
    path = folder / _MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; {_MEND}") from error
    except ValueError as error:  # no JSON, or no UTF-8
        raise UserError(f"{path}: damaged ({one_line(error)}); {_MEND}") from error
    owner = found.get("owner") if isinstance(found, dict) and found.keys() >= _SAID else None
    if not isinstance(owner, dict) or not owner.keys() >= _OWNER:
        raise UserError(f"{path}: not a sweep of this bgsweep; {_MEND}")
    return dict(found)


def read_journal(folder: Path) -> list[Event]:
    """All that happened in a sweep, in order.

    Lines that a killed driver has torn are left out; so are others that cannot be read, with a warning.
    """
    path = folder / _JOURNAL
    events: list[Event] = []
    begun: set[str] = set()
    damaged = 0
    for line in path.read_bytes().split(b"\n") if path.is_file() else []:
        event = _event(line)
        if event is None:
            damaged += bool(line.strip()) and not line.startswith(b'{"time": ')
            continue
        if "trial" in event:
            begun.add(event["trial"]["id"])
        elif event["event"] in ("result", "checkpoint", "recovered") and event["id"] not in begun:
            damaged += 1
            continue
        events.append(event)
    if damaged:
        _log.warning("%s: %d lines are damaged and left out", path, damaged)
    return events


def _event(line: bytes) -> Event | None:
    """What a journal's line tells; None where it cannot be read."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or not event.keys() >= _TOLD.get(str(event.get("event")), {""}):
        return None
    trial = event.get("trial", {"id": ""})
    return event if isinstance(trial, dict) and "id" in trial else None


def replay(events: Iterable[Event]) -> dict[str, TrialRecord]:
    """The trials' records, by id, as the events left them."""
    names = {each.name for each in fields(TrialRecord)}
    records: dict[str, TrialRecord] = {}
    for event in events:
        if event["event"] in ("started", "ended"):
            trial = event["trial"]
            records[trial["id"]] = TrialRecord(**{key: value for key, value in trial.items() if key in names})
        elif event["event"] == "result":
            record = records[event["id"]]
            record.epochs, record.metrics, record.seconds = event["epoch"], event["metrics"], event["seconds"]
            record.checkpoint = event["checkpoint"] or record.checkpoint
            record.run_id = event.get("run_id") or record.run_id
        elif event["event"] == "checkpoint":
            records[event["id"]].checkpoint = event["path"]
        elif event["event"] == "recovered":
            records[event["id"]].failures, records[event["id"]].error = event["failures"], event["error"]
        elif event["event"] == "generation":
            for exchange in event["exchanges"]:
                records[exchange["id"]].take_over(event["epoch"], exchange)
    return records


def alive(folder: Path, manifest: dict[str, Any]) -> bool:
    """Whether a driver looks after the sweep in a folder, on this machine or on another that shares the folder."""
    if manifest["owner"]["bgsweep.host"] == socket.gethostname():
        return owner_lives(manifest["owner"]) and not left_in_order(folder)  # in a notebook the process lives on
    pulse = folder / _PULSE
    return pulse.exists() and time.time() - pulse.stat().st_mtime < _DEAD_AFTER


def left_in_order(folder: Path) -> bool:
    """Whether the last driver closed what it had begun, as after Ctrl-C or an error; a killed one leaves its pulse."""
    return not (folder / _PULSE).exists()


def stop_file(folder: Path) -> Path:
    """The file whose being there asks the driver to end the sweep."""
    return folder / _STOP


def check_name(name: str) -> None:
    """Raise UserError for what cannot be a sweep's name, which is a folder of the store."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise UserError(
            f"{name!r}: not a name for a sweep; use letters, digits, '.', '-' and '_', with a letter or digit first"
        )


def by_number(trial: str) -> tuple[int, str]:
    """Key that sorts trials' names as they were begun: t99 before t100."""
    return len(trial), trial


def find_sweep(name: str, store: Path) -> tuple[Path, dict[str, Any]]:
    """A sweep's folder and what it says of itself.

    Raises:
        UserError: the store has no such sweep.
    """
    check_name(name)
    folder = store.absolute() / "sweeps" / name
    manifest = read_manifest(folder)
    if manifest is None:
        known = [path.name for path, _ in sweeps(store)]
        near = difflib.get_close_matches(name, known, n=1)
        told = (
            f"did you mean {near[0]}?"
            if near
            else f"there are: {', '.join(known[:5])}"
            if known
            else ("it has none; name the sweep's store by --store")
        )
        raise UserError(f"{store}: no sweep {name}; {told}")
    return folder, manifest


def sweeps(store: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Folders of all sweeps of a store with what they say of themselves, the latest first.

    One that cannot be read must not hide the others: it is named in a warning.
    """
    found = []
    for path in (store.absolute() / "sweeps").glob(f"*/{_MANIFEST}"):
        try:
            manifest = read_manifest(path.parent)
        except UserError as error:
            _log.warning("left out: %s", error)
        else:
            if manifest is not None:
                found.append((path.parent, manifest))
    return sorted(found, key=lambda one: began(*one), reverse=True)


def began(folder: Path, manifest: dict[str, Any]) -> float:
    """When a sweep began, in seconds since 1970; of one that does not say it, when it was last written."""
    said = manifest.get("began")
    return said if isinstance(said, float) else (folder / _MANIFEST).stat().st_mtime
