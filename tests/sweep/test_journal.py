"""Journals: what is written is read back, and one that an older version wrote still is."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bgsweep.sweep.events import Checkpointed, Ended, Event, Generation, Proposed, Recovered, Result, Started, replay
from bgsweep.sweep.journal import Journal, read_journal, read_records
from bgsweep.sweep.trial_record import Exchange, TrialRecord

RECORD = TrialRecord("t00", {"background.remove": 0.5}, "baseline", "d0", "run", lineage=[])
EVENTS: list[Event] = [
    Proposed(id="t00", values={"background.remove": 0.5}),
    Started(trial=RECORD),
    Result(id="t00", epoch=2, metrics={"loss": 1.0}, seconds=3.0, history=[{"epoch": 1, "loss": 2.0}]),
    Checkpointed(id="t00", path="s3://bucket/checkpoint_000001"),
    Recovered(id="t00", failures=1, error="its node died"),
    Generation(epoch=2, exchanges=[Exchange("t00", "t01", {"background.remove": 0.6}, "copy", "d1")]),
    Ended(trial=RECORD),
]


def test_each_kind_of_event_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert [journal.write(event) for event in EVENTS] == EVENTS
    assert read_journal(tmp_path) == EVENTS


def test_what_a_crash_of_the_machine_may_cost_is_a_second_of_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each event but results and checkpoints is on the disk before anything is done about it."""
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    journal = Journal(tmp_path)
    synced: list[int] = []
    sync = os.fsync
    monkeypatch.setattr("os.fsync", lambda descriptor: (synced.append(os.fstat(descriptor).st_size), sync(descriptor)))
    sizes = []
    for event in (*EVENTS[:2], EVENTS[2], EVENTS[2], EVENTS[3], EVENTS[4]):
        journal.write(event)
        sizes.append(next(tmp_path.glob("journal/*.jsonl")).stat().st_size)
    assert synced == [*sizes[:2], sizes[5]]
    clock[0] += 1.1
    journal.write(EVENTS[2])
    assert len(synced) == 4


def test_the_events_of_a_trial_add_up_to_its_record() -> None:
    record = replay(EVENTS[:-1])["t00"]
    assert (record.epochs, record.seconds, record.failures, record.error) == (2, 3.0, 1, "its node died")
    assert (record.params, record.digest, record.checkpoint) == ({"background.remove": 0.6}, "d1", "copy")
    assert record.lineage[0]["before"] == {"background.remove": 0.5} and record.lineage[0]["donor"] == "t01"
    assert RECORD.lineage == [] and replay(EVENTS[:-1])["t00"] == record, "a replay changes no event"
    assert replay(EVENTS)["t00"] == RECORD


def test_callbacks_follow_the_journal_with_the_records_of_that_moment() -> None:
    told: list[Any] = []
    replay(
        EVENTS,
        on_proposed=lambda event: told.append(event.id),
        on_started=lambda record: told.append(record.status),
        on_result=lambda event, record: told.append((event.epoch, record.epochs)),
        on_generation=lambda event: told.append(event.epoch),
        on_ended=lambda record: told.append(record.id),
    )
    assert told == ["t00", "running", (2, 2), 2, "t00"]


def test_an_older_version_s_journal_is_read(tmp_path: Path) -> None:
    """Its events have other keys too, or lack the newest ones; a newer version's kinds are passed over."""
    trial = {"id": "t00", "params": {}, "fixed": None, "digest": "d", "run_id": "", "status": "running", "gone": 1}
    lines: list[dict[str, Any]] = [
        {"time": 1.0, "event": "proposed", "id": "t00"},
        {"time": 2.0, "event": "started", "trial": trial},
        {"time": 3.0, "event": "result", "id": "t00", "epoch": 1, "metrics": {}, "seconds": 1.0, "checkpoint": None},
        {"time": 4.0, "event": "from the future", "id": "t00"},
    ]
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    events = read_journal(tmp_path)
    assert [event.time for event in events] == [1.0, 2.0, 3.0]
    assert replay(events)["t00"].epochs == 1


@pytest.mark.parametrize(
    "line",
    [
        {"event": "generation", "time": 1.0, "epoch": 2, "exchanges": [{"id": "t07", "donor": "t00"}]},
        {
            "event": "generation",
            "epoch": 2,
            "exchanges": [{"id": "t07", "donor": "t00", "values": {}, "checkpoint": "", "digest": ""}],
        },
        {"event": "started", "trial": {"id": "t07"}},
        {"event": ["result"]},
    ],
)
def test_an_event_that_does_not_fit_is_left_out_with_a_warning(
    line: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "journal.jsonl").write_text(json.dumps(line) + "\n")
    assert read_journal(tmp_path) == []
    assert "1 lines are damaged and left out" in caplog.text


def test_a_long_journal_is_small_and_its_present_state_is_read_from_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bgsweep.sweep.journal._PART_BYTES", 4000)
    records: dict[str, TrialRecord] = {}
    journal = Journal(tmp_path, None, records)
    for number in range(8):
        name = f"t{number:02d}"
        records[name] = TrialRecord(name, {"background.remove": number / 7}, None, "d", "run")
        journal.write(Started(trial=records[name].copy()))
        for epoch in range(1, 21):
            values = {"loss": 1 / epoch, "knn_top1": number / (7 * epoch)}
            event = Result(id=name, epoch=epoch, metrics=values, seconds=epoch, history=[{"epoch": epoch, **values}])
            event.apply(records[name])
            journal.write(event)
        records[name].status = "completed"
        journal.write(Ended(trial=records[name].copy()))
    parts = sorted(path.name for path in (tmp_path / "journal").iterdir())
    assert len(parts) > 3 and all(name.endswith(".zst") for name in parts[:-1])
    whole = read_journal(tmp_path)
    assert sum(isinstance(event, Result) for event in whole) == 160
    assert replay(whole) == read_records(tmp_path) == records
    for name in parts[:-1]:
        (tmp_path / "journal" / name).write_bytes(b"not read")
    (tmp_path / "journal" / parts[-1]).write_bytes((tmp_path / "journal" / parts[-1]).read_bytes()[:-20])
    assert read_records(tmp_path)["t00"] == records["t00"], "and the torn last line is read over"
