"""The journal of a sweep: a file to which each event is appended as one line of JSON."""

import json
import logging
from pathlib import Path
from typing import Any, TypeVar

from bgsweep.sweep.events import Ended, Event, Started, read_event, trials_in

JOURNAL_FILE = "journal.jsonl"

_E = TypeVar("_E", bound=Event)
_log = logging.getLogger(__name__)


class Journal:
    """Appends events to a sweep's journal."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        path = folder / JOURNAL_FILE
        # A killed driver may leave a torn last line; the next event must not become a part of it.
        torn = path.exists() and not path.read_bytes().endswith(b"\n")
        self._file = path.open("a", encoding="utf-8")
        if torn:
            self._file.write("\n")

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune pickles the searcher, which holds this, into its own state file; nothing reads that."""
        return type(None), ()

    def write(self, event: _E) -> _E:
        """Append an event, and return it."""
        self._file.write(json.dumps(event.public()) + "\n")
        self._file.flush()
        return event


def read_journal(folder: Path) -> list[Event]:
    """All events of a sweep, in order.

    Lines torn by a killed driver are left out; so are damaged ones, with a warning.
    """
    path = folder / JOURNAL_FILE
    events: list[Event] = []
    started: set[str] = set()
    damaged = 0
    for line in path.read_bytes().split(b"\n") if path.is_file() else []:
        event = _decode(line)
        if event is None:
            # What begins like an event was torn when its driver died, or is of a kind that a newer version writes.
            damaged += bool(line.strip()) and not line.startswith(b'{"time": ')
        elif not trials_in(event) <= started:
            damaged += 1
        else:
            if isinstance(event, Started | Ended):
                started.add(event.trial.id)
            events.append(event)
    if damaged:
        _log.warning("%s: %d lines are damaged and left out", path, damaged)
    return events


def _decode(line: bytes) -> Event | None:
    try:
        return read_event(json.loads(line))
    except ValueError:
        return None
