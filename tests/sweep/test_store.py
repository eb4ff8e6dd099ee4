"""A sweep's small files in an object store, as another machine sees them."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bgsweep.errors import UserError
from bgsweep.sweep import store as kept
from bgsweep.sweep.control import status, stop
from bgsweep.sweep.events import Proposed, Result, Started
from bgsweep.sweep.heartbeat import Heartbeat, stop_file
from bgsweep.sweep.journal import Journal, read_journal
from bgsweep.sweep.manifest import read_manifest, write_manifest
from bgsweep.sweep.ownership import Ownership
from bgsweep.sweep.store import StoreSync, forget_stop, local_store
from bgsweep.sweep.trial_record import TrialRecord
from tests.progress import wait_for

STORE = "s3://bucket/runs"
ELSEWHERE = {"bgsweep.host": "another-machine", "bgsweep.pid": "1", "bgsweep.born": "0"}


def refuse(client: Any) -> None:
    """Take the bucket away: every write is refused."""
    for item in client.list_objects_v2(Bucket="bucket").get("Contents", ()):
        client.delete_object(Bucket="bucket", Key=item["Key"])
    client.delete_bucket(Bucket="bucket")


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def wait(condition: Any) -> None:
    wait_for(condition, lambda: None, "it is not seen at the other place", every=0.1)


def test_a_sweep_is_seen_stopped_and_ended_from_elsewhere(tmp_path: Path, s3: Any) -> None:
    folder = tmp_path / "sweeps" / "one"
    write_manifest(folder, {"file": {}, "digest": "d", "parent": "p", "owner": ELSEWHERE})
    journal = Journal(folder)
    with StoreSync(folder, STORE), Heartbeat(folder):
        journal.write(Started(trial=TrialRecord("t00", {"background.remove": 0.3}, None, "d", "run")))
        wait(lambda: status(None, STORE)["sweeps"] and status("one", STORE)["sweeps"][0]["trials"])
        (found,) = status(None, STORE)["sweeps"]
        assert (found["sweep"], found["state"], found["trials"][0]["id"]) == ("one", "running", "t00")
        measured = {"epoch": 1, "metrics": {"knn_top1": 0.5}, "history": [], "seconds": 1.0}
        journal.write(Result(id="t00", run_id="r", checkpoint="s3://bucket/x", **measured))
        wait(lambda: status("one", STORE)["sweeps"][0]["trials"][0]["checkpoint"] == "s3://bucket/x")
        assert stop("one", STORE) == {"sweep": "one", "follow": f"bgsweep status one --store {STORE}"}
        wait(stop_file(folder).exists)
    assert status("one", STORE)["sweeps"][0]["state"] == "interrupted"
    with pytest.raises(
        UserError, match=r"not running \(interrupted\); `bgsweep sweep --resume one --store s3://bucket/"
    ):
        stop("one", STORE)
    with StoreSync(folder, STORE):
        write_manifest(folder, {"file": {}, "digest": "d", "parent": "p", "owner": ELSEWHERE, "result": {"model": 1}})
    assert status("one", STORE)["sweeps"][0]["state"] == "ended"


def test_what_a_dead_driver_left_is_brought_back_without_the_wish_to_stop(tmp_path: Path, s3: Any) -> None:
    folder = tmp_path / "sweeps" / "one"
    write_manifest(folder, {"file": {}, "digest": "d", "parent": "p", "owner": ELSEWHERE})
    with StoreSync(folder, STORE):
        Journal(folder).write(Proposed(id="t00"))
    s3.put_object(Bucket="bucket", Key="runs/sweeps/one/stop", Body=b"stop")
    with local_store(STORE, "one") as place:
        again = place / "sweeps" / "one"
        assert read_journal(again) == read_journal(folder) != []
        forget_stop(again, STORE)
    assert "runs/sweeps/one/stop" not in [item["Key"] for item in s3.list_objects_v2(Bucket="bucket")["Contents"]]


@pytest.mark.parametrize(("limits", "told"), [({"hours": 10.0}, "budget: 2 of 10 hours"), ({}, None)])
def test_the_hours_of_a_long_sweep_are_those_of_its_whole_journal(
    tmp_path: Path,
    s3: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    limits: dict[str, float],
    told: str | None,
) -> None:
    """Of the bucket's journal `status` takes the end alone for the trials, whose start is in its first part."""
    monkeypatch.setattr("bgsweep.sweep.journal._PART_BYTES", 1000)
    began, folder = time.time(), tmp_path / "sweeps" / "one"
    budget = {"ran": 0.0, "since": began, "gpus": 0}
    manifest = {"file": {"search": {"budget": limits}}, "digest": "d", "parent": "p", "owner": ELSEWHERE}
    owner = Ownership.claim(folder, STORE, 0)
    with StoreSync(folder, STORE, owner):
        write_manifest(folder, manifest | {"budget": budget, "result": {"model": 1}})
        records = {"t00": TrialRecord("t00", {}, None, "d", "run")}
        journal = Journal(folder, owner, records)
        journal.write(Started(trial=records["t00"].copy(), time=began))
        for epoch in range(1, 61):
            event = Result(id="t00", epoch=epoch, metrics={"loss": 1.0}, seconds=1.0, time=began + epoch * 120)
            event.apply(records["t00"])
            journal.write(event)
    (found,) = status("one", STORE)["sweeps"]
    assert found["trials"][0]["epochs"] == 60 and len(list((folder / "journal").iterdir())) > 3
    assert (found["budget"] or {}).get("told") == told
    assert warned(caplog) == []


def test_an_empty_store_has_no_sweep_and_a_wrong_one_is_told(s3: Any) -> None:
    assert status(None, STORE) == {"sweeps": []}
    with pytest.raises(UserError, match="no sweep nobody"):
        status("nobody", STORE)
    with pytest.raises(UserError, match=r"zz://bucket/runs: .*name a folder or a URI"):
        status(None, "zz://bucket/runs")


def test_a_bucket_that_refuses_at_the_end_costs_nothing(
    tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The driver's folder is a temporary one: what the bucket refuses is kept, named, and sent by the next command."""
    monkeypatch.setenv("BGSWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "_LAST_TRIES", (0.0, 0.1))
    folder = tmp_path / "sweeps" / "one"
    journal = Journal(folder)
    with StoreSync(folder, STORE):
        write_manifest(folder, {"file": {}, "digest": "d", "parent": "p", "owner": ELSEWHERE})
        journal.write(Started(trial=TrialRecord("t00", {}, None, "d", "run")))
        wait(lambda: status(None, STORE)["sweeps"])
        refuse(s3)
        journal.write(Result(id="t00", epoch=1, metrics={"loss": 1.0}, seconds=1.0))
        time.sleep(2.5)
    shutil.rmtree(folder)
    warnings = warned(caplog)
    assert len(warnings) == 2, "one warning while it runs, however often it is tried, and one at the end"
    assert "it is tried again" in warnings[0]
    place = tmp_path / "cache" / "unsent" / "one"
    assert f"It is kept in {place}, and `bgsweep status one --store {STORE}`" in warnings[1]
    s3.create_bucket(Bucket="bucket")
    assert status("one", STORE)["sweeps"][0]["trials"][0]["epochs"] == 1
    assert not place.exists()


def test_a_bucket_that_refuses_is_tried_again_at_growing_intervals(
    tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sync = StoreSync(tmp_path / "sweeps" / "one", STORE)
    pauses: list[float] = []

    class Over:
        """The sweep's end, after ten tries; nothing is waited for."""

        def wait(self, pause: float) -> bool:
            pauses.append(pause)
            return len(pauses) > 10

    def copy() -> None:
        if len(pauses) < 9:
            raise OSError("ACCESS_DENIED")

    monkeypatch.setattr(sync, "_over", Over())
    monkeypatch.setattr(sync, "_copy", copy)
    sync._work()
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, 1, 1], "and each second again once it has taken them"
    assert len(warned(caplog)) == 1


def test_a_bucket_that_forbids_writing_from_some_moment_on_costs_nothing(
    tmp_path: Path, policy: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BGSWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "_LAST_TRIES", (0.0, 0.1))
    folder = tmp_path / "sweeps" / "one"
    journal = Journal(folder)
    with StoreSync(folder, STORE):
        write_manifest(folder, {"file": {}, "digest": "d", "parent": "p", "owner": ELSEWHERE})
        journal.write(Started(trial=TrialRecord("t00", {}, None, "d", "run")))
        wait(lambda: status(None, STORE)["sweeps"])
        policy("*")
        journal.write(Result(id="t00", epoch=1, metrics={"loss": 1.0}, seconds=1.0))
    shutil.rmtree(folder)
    place = tmp_path / "cache" / "unsent" / "one"
    (last,) = [line for line in warned(caplog) if "refuses" in line]
    assert f"It is kept in {place}" in last and "ACCESS_DENIED" in last
    policy()
    assert status("one", STORE)["sweeps"][0]["trials"][0]["epochs"] == 1
    assert not place.exists()


def test_what_was_kept_does_not_replace_a_later_driver_s_files(
    tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BGSWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "_LAST_TRIES", (0.0,))
    folder = tmp_path / "sweeps" / "one"
    owner = Ownership.claim(folder, STORE, 0)
    with StoreSync(folder, STORE, owner):
        write_manifest(folder, {"file": {}, "digest": "d", "parent": "old", "owner": ELSEWHERE})
        refuse(s3)
    s3.create_bucket(Bucket="bucket")
    again = tmp_path / "again" / "sweeps" / "one"
    with StoreSync(again, STORE, Ownership.claim(again, STORE, 1)):
        write_manifest(again, {"file": {}, "digest": "d", "parent": "new", "owner": ELSEWHERE})
    with local_store(STORE, "one") as place:
        assert (read_manifest(place / "sweeps" / "one") or {})["parent"] == "new"


def test_one_sweep_that_cannot_be_read_hides_no_other(
    tmp_path: Path, s3: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("good", "bad"):
        folder = tmp_path / "sweeps" / name
        write_manifest(folder, {"file": {}, "digest": "d", "parent": "p", "owner": ELSEWHERE, "result": {"model": 1}})
        with StoreSync(folder, STORE):
            Journal(folder).write(Started(trial=TrialRecord("t00", {}, None, "d", "run")))
    s3.put_object(Bucket="bucket", Key="runs/sweeps/bad/journal/00000-0000.jsonl.zst", Body=b"not compressed")
    assert [one["sweep"] for one in status(None, STORE)["sweeps"]] == ["good"]
    (warning,) = warned(caplog)
    assert "bad: its journal cannot be read" in warning
