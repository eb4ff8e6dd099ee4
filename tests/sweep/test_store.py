"""A sweep's small files in an object store, as another machine sees them."""

from pathlib import Path
from typing import Any

import pytest

from bgsweep.errors import UserError
from bgsweep.sweep.control import status, stop
from bgsweep.sweep.events import Proposed, Result, Started, TrialRecord
from bgsweep.sweep.heartbeat import Heartbeat, stop_file
from bgsweep.sweep.journal import Journal, read_journal
from bgsweep.sweep.manifest import write_manifest
from bgsweep.sweep.store import StoreSync, forget_stop, local_store
from tests.progress import wait_for

STORE = "s3://bucket/runs"
ELSEWHERE = {"bgsweep.host": "another-machine", "bgsweep.pid": "1", "bgsweep.born": "0"}


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


def test_an_empty_store_has_no_sweep_and_a_wrong_one_is_told(s3: Any) -> None:
    assert status(None, STORE) == {"sweeps": []}
    with pytest.raises(UserError, match="no sweep nobody"):
        status("nobody", STORE)
    with pytest.raises(UserError, match=r"zz://bucket/runs: .*name a folder or a URI"):
        status(None, "zz://bucket/runs")
