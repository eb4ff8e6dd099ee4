"""Of several drivers of one sweep only one writes, on a shared folder and in a bucket."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bgsweep.errors import UserError
from bgsweep.storage import exclusive
from bgsweep.sweep.events import Ended, Proposed, Result, Started, replay
from bgsweep.sweep.heartbeat import HEARTBEAT_FILE, Heartbeat, alive
from bgsweep.sweep.journal import Journal, read_journal, read_records
from bgsweep.sweep.manifest import write_manifest
from bgsweep.sweep.ownership import Ownership, SweepTaken, last_token, owner_of
from bgsweep.sweep.store import StoreSync, local_store
from bgsweep.sweep.trial_record import TrialRecord
from tests.progress import wait_for

ELSEWHERE = {"bgsweep.host": "another-machine", "bgsweep.pid": "1", "bgsweep.born": "0"}
MANIFEST: dict[str, Any] = {"file": {}, "digest": "d", "parent": "p", "owner": ELSEWHERE}
RECORD = TrialRecord("t00", {"background.remove": 0.5}, None, "d0", "run")


def test_of_many_that_create_a_file_at_once_one_succeeds(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: exclusive.create(tmp_path / "a" / "claim", b"%d" % n), range(8)))
    assert found.count(True) == 1
    assert (tmp_path / "a" / "claim").read_bytes() == b"%d" % found.index(True)


@pytest.mark.parametrize("conditional", [True, False])
def test_of_many_that_create_an_object_at_once_one_succeeds(
    conditional: bool, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By S3's conditional put, and by the protocol for stores that have none."""
    if not conditional:
        monkeypatch.setattr(exclusive, "_put_if_absent", lambda *_: None)
    uri = "s3://bucket/runs/sweeps/one/owners/00001"
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: exclusive.create(uri, b"%d" % n, settle=1.5), range(4)))
    assert found.count(True) == 1
    body = s3.get_object(Bucket="bucket", Key="runs/sweeps/one/owners/00001")["Body"].read()
    assert body == b"%d" % found.index(True)
    assert not exclusive.create(uri, b"late", settle=0)
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket="bucket", Prefix="runs/")["Contents"]]
    assert [key for key in keys if not key.endswith("/")] == ["runs/sweeps/one/owners/00001"], "candidates are removed"


def test_a_sweep_is_claimed_once_and_the_one_before_is_fenced_off(tmp_path: Path) -> None:
    folder = tmp_path / "sweeps" / "one"
    write_manifest(folder, MANIFEST)
    first = Ownership.claim(folder, tmp_path, last_token(folder))
    journal = Journal(folder, first, {})
    journal.write(Proposed(id="t00", values=RECORD.params))
    journal.write(Started(trial=RECORD))
    seen = last_token(folder)
    second = Ownership.claim(folder, tmp_path, seen)
    with pytest.raises(SweepTaken, match="one: another driver has just taken this sweep; follow it with `bgsweep st"):
        Ownership.claim(folder, tmp_path, seen)
    with pytest.raises(SweepTaken, match=r"another driver, on .*, has taken this sweep over; this one ends"):
        journal.write(Result(id="t00", epoch=1, metrics={"loss": 1.0}, seconds=1.0))
    later = Journal(folder, second, read_records(folder))
    later.write(Result(id="t00", epoch=1, metrics={"loss": 2.0}, seconds=1.0))
    assert replay(read_journal(folder))["t00"].metrics == read_records(folder)["t00"].metrics == {"loss": 2.0}


def test_what_a_driver_writes_after_another_has_taken_over_does_not_count(tmp_path: Path) -> None:
    """A write that was under way, or through a network file system's cache: no check can be early enough."""
    folder = tmp_path / "sweeps" / "one"
    journal = Journal(folder, Ownership.claim(folder, tmp_path, 0), {})
    journal.write(Proposed(id="t00", values=RECORD.params))
    journal.write(Started(trial=RECORD))
    later = Journal(folder, Ownership.claim(folder, tmp_path, 1), read_records(folder))
    line = b'{"time":1.0,"event":"result","id":"t00","epoch":9,"metrics":{"loss":9.0},"seconds":1.0}\n'
    with (folder / "journal" / "00001-0000.jsonl").open("ab") as stale:
        stale.write(line)
    (folder / "journal" / "00001-0001.jsonl").write_bytes(line)
    later.write(Result(id="t00", epoch=1, metrics={"loss": 2.0}, seconds=1.0))
    assert [event.epoch for event in read_journal(folder) if isinstance(event, Result)] == [1]


def test_a_journal_that_two_drivers_of_an_older_version_wrote_can_be_replayed(tmp_path: Path) -> None:
    alone = [
        Proposed(id="t00", values=RECORD.params),
        Started(trial=RECORD),
        Result(id="t00", epoch=1, metrics={"loss": 1.0}, seconds=1.0),
        Result(id="t00", epoch=2, metrics={"loss": 0.5}, seconds=2.0),
        Ended(trial=RECORD),
    ]
    journal = Journal(tmp_path)
    for event in alone:
        journal.write(event)
        journal.write(event)
    assert read_journal(tmp_path) == alone


def test_a_bucket_s_driver_learns_that_another_one_has_taken_over(tmp_path: Path, s3: Any) -> None:
    store, folder = "s3://bucket/runs", tmp_path / "sweeps" / "one"
    owner = Ownership.claim(folder, store, 0)
    write_manifest(folder, MANIFEST)
    journal = Journal(folder, owner, {})
    with StoreSync(folder, store, owner), Heartbeat(folder, owner.token):
        journal.write(Started(trial=RECORD))

        def there() -> bool:
            with local_store(store, "one") as place:
                return bool(read_records(place / "sweeps" / "one"))

        wait_for(there, lambda: None, "the journal is not copied", every=0.2)
        with local_store(store, "one") as place:
            copy = place / "sweeps" / "one"
            assert owner_of(copy, {})["bgsweep.host"] == owner_of(folder, {})["bgsweep.host"]
            other = Ownership.claim(copy, store, last_token(copy))
            wait_for(owner.lost, lambda: None, "the claim is not seen", every=0.2)
            with pytest.raises(SweepTaken):
                journal.write(Ended(trial=RECORD))
            Journal(copy, other, read_records(copy))
            with StoreSync(copy, store, other):
                pass
    with local_store(store, "one") as place:
        assert read_records(place / "sweeps" / "one")["t00"].status == "running"


def test_a_driver_elsewhere_is_alive_while_its_counter_rises_whatever_the_clocks_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bgsweep.sweep.heartbeat.INTERVAL", 0.1)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with Heartbeat(tmp_path, 1):
        assert alive(tmp_path, MANIFEST, seconds=20)
    assert not alive(tmp_path, MANIFEST, seconds=20), "closed properly"
    (tmp_path / HEARTBEAT_FILE).write_text("1 17\n")
    began = time.monotonic()
    assert not alive(tmp_path, MANIFEST, seconds=1)
    assert time.monotonic() - began >= 1


def test_the_heartbeat_survives_a_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("bgsweep.sweep.heartbeat.INTERVAL", 0.05)
    folder, away = tmp_path / "one", tmp_path / "away"
    folder.mkdir()
    with Heartbeat(folder, 1):
        folder.rename(away)
        folder.write_bytes(b"a file is in its place")
        wait_for(lambda: caplog.messages, lambda: None, "nothing is said")
        time.sleep(0.3)
        folder.unlink()
        away.rename(folder)
        before = (folder / HEARTBEAT_FILE).read_text()
        wait_for(lambda: (folder / HEARTBEAT_FILE).read_text() != before, lambda: None, "the heart stands still")
    (warning,) = caplog.messages
    assert "sign of life cannot be written" in warning


def test_a_claim_of_a_sweep_that_was_refused_leaves_its_name_free(tmp_path: Path) -> None:
    folder = tmp_path / "sweeps" / "one"
    with pytest.raises(UserError, match="too small"), Ownership.claim(folder, tmp_path, 0), Heartbeat(folder, 1):
        raise UserError("the cluster is too small")
    assert not folder.exists()


@pytest.mark.faults
def test_of_two_resumes_at_once_one_runs_and_the_other_ends_with_one_line(tmp_path: Path) -> None:
    from tests.sweep.test_resume import begin, told

    process = begin(tmp_path, "t01 running", "search.trials=3", "search.scheduler=none", "training.epochs=4")
    process.kill()
    process.wait()
    (name,) = [folder.name for folder in (tmp_path / "bgsweep_runs/sweeps").iterdir()]
    command = [sys.executable, "-m", "bgsweep.cli", "sweep", "--resume", name, "--json"]
    ends: dict[int, tuple[int, str]] = {}

    def resume(number: int) -> None:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
        ends[number] = done.returncode, done.stderr

    threads = [threading.Thread(target=resume, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (log,) = [log for code, log in ends.values() if code == 2]
    assert [code for code, _ in ends.values()].count(0) == 1, ends
    (line,) = log.strip().splitlines()
    assert "has just taken this sweep" in line or "is still running" in line, log
    _, seen, _ = told(tmp_path, "status", name)
    assert [trial["epochs"] for trial in seen["sweeps"][0]["trials"]] == [4, 4, 4]
    events = read_journal(tmp_path / "bgsweep_runs/sweeps" / name)
    assert sum(isinstance(event, Ended) for event in events) == 3
    results = [(event.id, event.epoch) for event in events if isinstance(event, Result)]
    assert len(results) == len(set(results)) == 12
