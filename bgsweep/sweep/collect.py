"""Removal of checkpoints that nobody needs: the best ones stay, and those of trials that are not at their end."""

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bgsweep.config import SweepConfig
from bgsweep.errors import UserError, one_line
from bgsweep.storage.layout import sweep_folder
from bgsweep.storage.uri import Uri, filesystem, is_remote, sweep_command, uri_of
from bgsweep.sweep.events import Collected
from bgsweep.sweep.heartbeat import WATCH, alive
from bgsweep.sweep.journal import Journal, read_records
from bgsweep.sweep.manifest import find_sweep, sweeps
from bgsweep.sweep.ownership import Ownership, last_token
from bgsweep.sweep.selection import cautious, front, searched
from bgsweep.sweep.store import local_store, pulse_reader
from bgsweep.sweep.trial import trial_file
from bgsweep.sweep.trial_names import by_number, is_confirmation
from bgsweep.sweep.trial_record import TrialRecord

_log = logging.getLogger(__name__)

# The folders of `bgsweep.storage.layout`; older versions named those of Ray Train by the digest alone.
_CHECKPOINT = re.compile(
    r"(?P<tune>tune-[^/]+/(?P<a>[tc]\d+)/checkpoint_\d[^/]*)|(?P<train>ray_train/((?P<b>[tc]\d+)-)?[0-9a-f]+/checkpoint_\d[^/]*)"
    r"|(?P<copy>taken_over/\d+/(?P<c>t\d+))"
)


@dataclass
class _Found:
    """A checkpoint's folder: its path in the sweep's folder, its URI, its trial if the name tells, and its size."""

    path: str
    uri: str
    trial: str | None
    size: int = 0

    @property
    def driver(self) -> str:
        return self.path.partition("/")[0]


def kept_trials(config: SweepConfig, records: Mapping[str, TrialRecord]) -> set[str]:
    """The trials whose checkpoints stay: the best `search.keep_checkpoints`, the baseline, all of the Pareto front,
    those that confirm others, and those that have failed, which can be tried again, or are running."""
    keep, signs = config.search.keep_checkpoints, config.search.signs
    if keep is None:
        return set(records)
    metric, sign = next(iter(signs.items()))

    def rank(record: TrialRecord) -> tuple[bool, float]:
        return record.status != "completed", -sign * record.metrics.get(metric, -sign * float("inf"))

    own = searched(records.values())
    ended = [record for record in cautious(own, config.search) if record.status in ("completed", "stopped")]
    stay = sorted(ended, key=rank)[:keep] + front(own, config.search)
    others = [
        one
        for one in records.values()
        if one.fixed == "baseline" or one.status in ("running", "failed") or is_confirmation(one.id)
    ]
    return {record.id for record in [*stay, *others]}


class Collector:
    """Removes checkpoints while a sweep runs; the deleting itself is done by a thread."""

    def __init__(self, config: SweepConfig, sweep: Uri, journal: Journal) -> None:
        self._config, self._sweep, self._journal = config, sweep, journal
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._ended = -1

    def look(self, records: Mapping[str, TrialRecord]) -> None:
        """Remove the checkpoints of trials that have fallen behind, once more trials have ended."""
        ended = sum(record.status != "running" for record in records.values())
        if ended == self._ended:
            return
        self._ended = ended
        for record in drop(self._config, self._journal, records):
            self._thread.submit(_remove, record)

    def tidy(self, records: Mapping[str, TrialRecord]) -> None:
        """Remove what earlier drivers have left, too; `look` knows only of the trials' last checkpoints."""
        self.look(records)
        snapshot = {name: record.copy() for name, record in records.items()}
        self._thread.submit(_tidy, self._sweep, snapshot)

    def close(self) -> None:
        self._thread.shutdown(wait=True)


def drop(config: SweepConfig, journal: Journal, records: Mapping[str, TrialRecord]) -> list[str]:
    """Record that trials have no checkpoint any more; give the URIs of what may now be removed."""
    stay = kept_trials(config, records)
    uris = []
    for name in sorted(records.keys() - stay, key=by_number):
        if (checkpoint := records[name].checkpoint) is not None:
            uris.append(checkpoint)
            journal.write(Collected(id=name)).apply(records[name])
    return uris


def unneeded(sweep: Uri, records: Mapping[str, TrialRecord]) -> list[_Found]:
    """The checkpoints in a sweep's folder that none of its trials needs.

    Of a trial that is not at its end, its last one stays, and all that its latest driver may be writing.
    """
    found = list(_checkpoints(sweep))
    # By their paths in the sweep's folder: today's name of the store need not be the one that its drivers were given.
    needed = {_path(record.checkpoint) for record in records.values() if record.checkpoint}
    running = {record.id for record in records.values() if record.status == "running"}
    resumable = running | {record.id for record in records.values() if record.status == "failed" and record.checkpoint}
    latest = max((each.driver for each in found if each.driver.startswith("tune-")), default="")
    return [each for each in found if each.path not in needed and not _in_use(each, running, resumable, latest)]


def _in_use(found: _Found, running: Collection[str], resumable: Collection[str], latest: str) -> bool:
    if found.driver.startswith("tune-"):
        return found.driver == latest and found.trial in running
    if found.driver == "ray_train":  # Ray Train reads its own list of a trial's checkpoints when the trial goes on
        return found.trial in resumable if found.trial else bool(resumable)
    return bool(running)  # a population's copies, from which any of its trials may continue


def collect(name: str | None, store: Uri, keep: int | None = None, dry_run: bool = False) -> dict[str, Any]:
    """Remove the checkpoints that are not needed of one sweep, or of all of a store that are not running.

    Args:
        keep: in place of the sweep's `search.keep_checkpoints`.

    Returns:
        ``removed``: ``sweep``, ``checkpoint`` and ``bytes`` of each; ``running``: the sweeps left alone; ``dry_run``.

    Raises:
        UserError: there is no such sweep, or it is running: its driver removes them by itself.
    """
    removed: list[dict[str, Any]] = []
    running = []
    with local_store(store, name) as local:
        found = sweeps(local) if name is None else [find_sweep(name, local)]
        for folder, manifest in found:
            seen = last_token(folder)
            if alive(folder, manifest, pulse_reader(folder, store), WATCH if name else 12.0):
                running.append(folder.name)
                continue
            removed += _collected(folder, manifest, store, seen, keep, dry_run)
    if name is not None and running:
        raise UserError(
            f"{name}: its driver removes checkpoints by itself while the sweep is running; try again when it has ended"
        )
    return {"removed": removed, "running": running, "dry_run": dry_run}


def _collected(
    folder: Path, manifest: dict[str, Any], store: Uri, seen: int, keep: int | None, dry_run: bool
) -> list[dict[str, Any]]:
    config = trial_file(manifest["file"], {})
    if keep is not None:
        config = config.model_copy(update={"search": config.search.model_copy(update={"keep_checkpoints": keep})})
    records, root = read_records(folder), sweep_folder(store, folder.name)
    if dry_run:
        stay = kept_trials(config, records)
        records = {name: record if name in stay else _without(record) for name, record in records.items()}
        return [_told(folder.name, each) for each in unneeded(root, records)]
    from bgsweep.sweep.store import StoreSync

    with Ownership.claim(folder, store, seen) as owner, StoreSync(folder, store, owner):
        drop(config, Journal(folder, owner, records), records)
        found = unneeded(root, records)
        for each in found:
            _remove(each.uri)
    return [_told(folder.name, each) for each in found]


def remove(name: str, store: Uri) -> dict[str, Any]:
    """Remove a sweep from its store: journal, checkpoints and page. Its MLflow runs and models stay.

    Returns:
        ``sweep`` and ``bytes``.

    Raises:
        UserError: there is no such sweep, or it is running.
    """
    with local_store(store, name, "signs") as local:
        folder, manifest = find_sweep(name, local)
        seen = last_token(folder)
        if alive(folder, manifest, pulse_reader(folder, store), WATCH):
            raise UserError(f"{name}: the sweep is running; stop it first with `{sweep_command('stop', name, store)}`")
        Ownership.claim(folder, store, seen)  # nobody resumes it meanwhile
    where, root = _open(sweep_folder(store, name))
    size = sum(info.size or 0 for info in _listed(where, root))
    try:
        where.delete_dir(root)
    except OSError as error:
        raise UserError(f"{root}: cannot be removed: {one_line(error)}; check the store's permissions") from error
    return {"sweep": name, "bytes": size}


def _told(sweep: str, found: _Found) -> dict[str, Any]:
    return {"sweep": sweep, "checkpoint": found.uri, "bytes": found.size}


def _without(record: TrialRecord) -> TrialRecord:
    copy = record.copy()
    copy.checkpoint = None
    return copy


def _tidy(sweep: Uri, records: Mapping[str, TrialRecord]) -> None:
    try:
        for each in unneeded(sweep, records):
            _remove(each.uri)
    except (OSError, UserError) as error:
        _log.warning("%s: old checkpoints cannot be removed: %s", sweep, one_line(error))


def _remove(uri: str) -> None:
    where, path = _open(uri)
    try:
        where.delete_dir(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        _log.warning("%s: cannot be removed: %s; `bgsweep gc` tries it again", uri, one_line(error))


def _checkpoints(sweep: Uri) -> Iterable[_Found]:
    where, root = _open(sweep)
    found: dict[str, _Found] = {}
    for info in _listed(where, root):
        match = _CHECKPOINT.match(info.path.removeprefix(root).lstrip("/"))
        if match is None:
            continue
        trial = match["a"] or match["b"] or match["c"]
        one = found.setdefault(match[0], _Found(match[0], uri_of(f"{root}/{match[0]}", where), trial))
        one.size += info.size or 0
    return found.values()


def _path(checkpoint: str) -> str:
    """A checkpoint's path in its sweep's folder, from the URI that its driver has recorded."""
    return "/".join(checkpoint.split("/")[-3:])  # as `_CHECKPOINT` has it


def _open(uri: Uri) -> tuple[Any, str]:
    if is_remote(uri):
        return filesystem(uri)
    from pyarrow.fs import LocalFileSystem

    return LocalFileSystem(), str(Path(uri).absolute())


def _listed(where: Any, root: str) -> list[Any]:
    from pyarrow.fs import FileSelector

    return list(where.get_file_info(FileSelector(root, recursive=True, allow_not_found=True)))
