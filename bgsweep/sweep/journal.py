"""The journal of a sweep: append-only files, the parts, with an event as JSON on each line.

``journal/TOKEN-PART.jsonl`` is the part that the driver of that token writes; a full one becomes ``….jsonl.zst``, so
that a bucket gets each event a few times only. ``records-TOKEN.json`` has the trials as they were when the last full
part was closed: whoever needs no more than the trials' present state reads that and what came after. Older versions
wrote one file, ``journal.jsonl``, which is read as the first part.
"""

import contextlib
import gc
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import zstandard

from bgsweep.storage.atomic import write_whole
from bgsweep.sweep.events import (
    Checkpointed,
    Ended,
    Event,
    Generation,
    Owned,
    Proposed,
    Recovered,
    Result,
    Retried,
    Started,
    read_event,
    replay,
    trials_in,
)
from bgsweep.sweep.ownership import Ownership
from bgsweep.sweep.trial_record import TrialRecord

PARTS, OLD_FILE = "journal", "journal.jsonl"

_PART_BYTES = 256 << 10
_from_json = json.JSONDecoder().decode  # without looking for the encoding of each line
_SYNC_EVERY = 1.0  # seconds of results that a crash of the machine may cost; the trials repeat them
_E = TypeVar("_E", bound=Event)
_log = logging.getLogger(__name__)


class Journal:
    """Appends a driver's events to a sweep's journal.

    Args:
        owner: the driver's claim, which is checked before each write.
        records: the trials' records, which the caller keeps up to date.
        trials: `search.trials`.
    """

    def __init__(
        self,
        folder: Path,
        owner: Ownership | None = None,
        records: Mapping[str, TrialRecord] | None = None,
        trials: int | None = None,
    ) -> None:
        self.folder = folder
        self._owner = owner
        self._records = records
        self.token = owner.token if owner else 0
        (folder / PARTS).mkdir(parents=True, exist_ok=True)
        before = _parts(folder)
        self._number = sum(part.token == self.token for part in before)
        self._synced = 0.0
        self._open()
        if owner:
            self._summarise()
            self.write(Owned(token=owner.token, after={part.name: part.size for part in before}, trials=trials))

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune pickles the searcher, which holds this, into its own state file; nothing reads that."""
        return type(None), ()

    def write(self, event: _E) -> _E:
        """Append an event, and return it.

        Raises:
            SweepTaken: another driver has taken the sweep over.
        """
        if self._owner:
            self._owner.check()
        if self._file.tell() > _PART_BYTES:
            self._next_part()
        self._file.write(json.dumps(event.public(), separators=(",", ":")).encode() + b"\n")
        self._file.flush()
        now = time.monotonic()
        if not isinstance(event, Result | Checkpointed) or now - self._synced > _SYNC_EVERY:
            os.fsync(self._file.fileno())
            self._synced = now
        return event

    def _open(self) -> None:
        self._path = self.folder / PARTS / f"{self.token:05d}-{self._number:04d}.jsonl"
        self._file = self._path.open("ab")

    def _next_part(self) -> None:
        """Close a full part.

        The records may hold the event that is about to be written already, which does no harm: all but a generation,
        which is applied after it is written, can be applied twice.
        """
        self._file.close()
        write_whole(self._path.with_name(self._path.name + ".zst"), zstandard.compress(self._path.read_bytes()))
        self._path.unlink()
        self._number += 1
        self._open()
        self._summarise()

    def _summarise(self) -> None:
        if self._records is None:
            return
        records = [_summary(record) for record in self._records.values()]
        through = {"part": self._number, "records": records}
        write_whole(self.folder / f"records-{self.token:05d}.json", json.dumps(through).encode())
        for path in self.folder.glob("records-*.json"):
            if path.name < f"records-{self.token:05d}.json":
                path.unlink(missing_ok=True)


def read_journal(folder: Path) -> list[Event]:
    """All events of a sweep, in order.

    Lines torn by a killed driver are left out, and what a driver wrote that another one had replaced; so are, with a
    warning, damaged lines. Of two drivers of an older version that wrote to one journal, each event counts once.
    """
    with without_collection():
        return list(_events(folder, _parts(folder), {}))


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Switch Python's search for cycles off: among 200,000 events, which have none, it takes a third of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def read_records(folder: Path) -> dict[str, TrialRecord]:
    """The trials' records, by id; of a long journal only the end is read."""
    first, records = summary(folder, [path.name for path in (folder / PARTS).glob("*.jsonl*")])
    return replay(_events(folder, _parts(folder, first), records), records={k: r.copy() for k, r in records.items()})


def summary(folder: Path, parts: Sequence[str]) -> tuple[str, dict[str, TrialRecord]]:
    """The newest summary of the trials: the name of the first part that it does not cover, and their records by id.

    Empty where there is none: then the journal has everything.
    """
    token = max((name.partition("-")[0] for name in parts), default="")
    try:
        found = json.loads((folder / f"records-{token}.json").read_text(encoding="utf-8"))
        return f"{token}-{found['part']:04d}", {each["id"]: TrialRecord.read(each) for each in found["records"]}
    except (OSError, ValueError, KeyError, TypeError):
        return "", {}


@dataclass(frozen=True)
class _Part:
    """A part of the journal as far as it counts."""

    path: Path
    token: int
    number: int
    size: int

    @property
    def name(self) -> str:
        return self.path.name.removesuffix(".zst")

    def lines(self) -> Iterator[bytes]:
        yield from self.path_bytes()[: self.size].split(b"\n")

    def path_bytes(self) -> bytes:
        found = self.path.read_bytes()
        return zstandard.decompress(found) if self.path.suffix == ".zst" else found


def _parts(folder: Path, first: str = "") -> list[_Part]:
    """The parts in their order, each as long as the drivers that came later found it, from that of a name on."""
    found: dict[str, _Part] = {}
    if not first and (folder / OLD_FILE).is_file():
        found[OLD_FILE] = _Part(folder / OLD_FILE, 0, -1, (folder / OLD_FILE).stat().st_size)
    for path in sorted(path for path in (folder / PARTS).glob("*-*.jsonl*") if path.name >= first):
        mark, _, number = path.name.partition(".")[0].partition("-")
        if mark.isdigit() and number.isdigit():  # a full part is there twice for a moment: compressed is the later
            found[path.name.removesuffix(".zst")] = _Part(path, int(mark), int(number), _full_size(path))
    for token in sorted({part.token for part in found.values()}, reverse=True):
        after = _limits(found, token)
        if after is None:
            continue
        found = {
            name: part if part.token >= token else _Part(part.path, part.token, part.number, min(part.size, limit))
            for name, part in found.items()
            if (limit := after.get(name, 0)) or part.token >= token
        }
    return sorted(found.values(), key=lambda part: (part.token, part.number))


def _full_size(path: Path) -> int:
    if path.suffix == ".zst":
        with path.open("rb") as file:
            return int(zstandard.frame_content_size(file.read(18)))
    return path.stat().st_size


def _limits(found: Mapping[str, _Part], token: int) -> dict[str, int] | None:
    """The bytes of earlier parts that count for the driver of a token; None if it did not live to say so."""
    first = next((part for part in found.values() if part.token == token and part.number == 0), None)
    event = _decode(next(first.lines())) if first and token else None
    return event.after if isinstance(event, Owned) else None


def _events(folder: Path, parts: list[_Part], records: Mapping[str, TrialRecord]) -> Iterator[Event]:
    once = Once(records)
    for part in parts:
        damaged = 0
        for line in part.lines():
            event = _decode(line)
            if event is None:
                # What begins like an event was torn when its driver died, or is of a kind that a newer version writes.
                damaged += bool(line.strip()) and not line.startswith((b'{"time": ', b'{"time":'))
            elif not trials_in(event) <= once.started:
                damaged += 1
            elif once.accepts(event):
                yield event
        if damaged:
            _log.warning("%s: %d lines are damaged and left out", part.path, damaged)


class Once:
    """Tells an event from its repetition by a second driver, which journals of older versions may hold."""

    def __init__(self, records: Mapping[str, TrialRecord]) -> None:
        self.started = set(records)
        self._proposed: set[str] = set()
        self._ended = {name for name, record in records.items() if record.status != "running"}
        self._epochs = {name: record.epochs for name, record in records.items()}
        self._generation = 0

    def accepts(self, event: Event) -> bool:
        match event:
            case Proposed():
                new = event.id not in self._proposed
                self._proposed.add(event.id)
                return new
            case Started(trial=trial):
                new = trial.id not in self.started
                self.started.add(trial.id)
                return new
            case Ended(trial=trial):
                new = trial.id not in self._ended
                self.started.add(trial.id)
                self._ended.add(trial.id)
                return new
            case Result():
                new = event.id not in self._ended and event.epoch > self._epochs.get(event.id, 0)
                if new:
                    self._epochs[event.id] = event.epoch
                return new
            case Retried():
                new = event.id in self._ended
                self._ended.discard(event.id)
                return new
            case Recovered():
                return event.id not in self._ended
            case Generation():
                new = event.epoch > self._generation
                self._generation = max(event.epoch, self._generation)
                return new
        return True


def _summary(record: TrialRecord) -> dict[str, Any]:
    return {**record.public(), "began": record.began}


def _decode(line: bytes) -> Event | None:
    try:
        return read_event(_from_json(line.decode()))
    except ValueError:
        return None
