"""Sweeps are read from a store, whatever else lies in it."""

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from bgsweep.config import load
from bgsweep.config.sweep import sweep_name
from bgsweep.errors import UserError
from bgsweep.sweep.control import status
from bgsweep.sweep.driver import sweep
from bgsweep.sweep.events import Result, Started, replay
from bgsweep.sweep.journal import Journal, read_journal
from bgsweep.sweep.manifest import sweeps, write_manifest
from bgsweep.sweep.trial import dump
from bgsweep.sweep.trial_record import TrialRecord
from tests.command import bgsweep

TINY = Path(__file__).parents[1] / "tiny.yaml"
RANGE = "space.background.remove={uniform: [0, 0.8]}"
ELSEWHERE = {"bgsweep.host": "another-machine", "bgsweep.pid": "1", "bgsweep.born": "0"}


def make(store: Path, name: str, began: float | None = None, trials: int = 1, **more: Any) -> Path:
    """A sweep's folder as a driver leaves it."""
    folder = store / "sweeps" / name
    said = {"file": dump(load(TINY)), "digest": name, "parent": "p", "owner": ELSEWHERE, **more}
    write_manifest(folder, said if began is None else {**said, "began": began})
    journal = Journal(folder)
    for number in range(trials):
        record = TrialRecord(f"t{number:02d}", {}, None, "d", "run")
        journal.write(Started(trial=record))
        journal.write(Result(id=record.id, run_id="run", epoch=1, metrics={"knn_top1": 0.5}, seconds=1.0))
    return folder


def spoil(store: Path, kind: str) -> Path:
    """Something in the store that is no readable sweep."""
    folder = store / "sweeps" / "bad"
    folder.mkdir(parents=True)
    path = folder / "sweep.json"
    if kind == "folder":
        path.mkdir()
    elif kind != "foreign":
        path.write_bytes(
            {
                "torn": b'{"file": {',
                "empty": b"",
                "binary": b"\xff\xfe\x00",
                "list": b"[1, 2]",
                "other": b'{"name": "webpack"}',
                "half": json.dumps({"file": {}, "digest": "d", "parent": "p", "owner": None}).encode(),
            }[kind]
        )
    return folder


KINDS = ["torn", "empty", "binary", "list", "other", "half", "folder"]


@pytest.mark.parametrize("kind", KINDS)
def test_one_unreadable_sweep_is_named_and_the_others_are_shown(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, "good")
    bad = spoil(tmp_path, kind)
    done = bgsweep("status", "--store", tmp_path, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("good ")
    (warning,) = caplog.messages
    assert str(bad / "sweep.json") in warning and "\n" not in warning
    done = bgsweep("status", "bad", "--store", tmp_path, folder=tmp_path)
    assert done.returncode == 2
    assert re.search(r"^error: .*bad/sweep\.json: .*; move that folder out of the store", done.stderr)
    assert "did you mean good?" in bgsweep("status", "god", "--store", tmp_path, folder=tmp_path).stderr


def test_a_folder_of_somebody_else_is_no_sweep(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, "good")
    spoil(tmp_path, "foreign")
    (tmp_path / "sweeps" / "notes.txt").write_text("mine")
    assert [one["sweep"] for one in status(None, tmp_path)["sweeps"]] == ["good"]
    assert not caplog.messages


@pytest.mark.parametrize("kind", ["torn", "half"])
def test_a_new_sweep_begins_beside_an_unreadable_one(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(tmp_path, kind)
    begun: list[Path] = []
    monkeypatch.setattr("bgsweep.sweep.driver._run", lambda file, owner, *_: begun.append(owner.folder))
    sweep(load(TINY, [RANGE]), tmp_path, "mine")
    assert begun == [tmp_path / "sweeps" / "mine"]


def test_a_damaged_journal_shows_what_can_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make(tmp_path, "good", trials=3)
    (path,) = (folder / "journal").iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    del lines[2]  # the beginning of t01
    lines[1:1] = [b"\xff\xfe\n", b"[]\n", b'{"event": "result", "id": "t00"}\n', lines[1][:40] + b"\n"]
    path.write_bytes(b"".join(lines))
    assert list(replay(read_journal(folder))) == ["t00", "t02"]
    assert caplog.messages == [f"{path}: 4 lines are damaged and left out"]
    assert [trial["id"] for trial in status("good", tmp_path)["sweeps"][0]["trials"]] == ["t00", "t02"]


def test_a_torn_last_line_is_no_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make(tmp_path, "good")
    (path,) = (folder / "journal").iterdir()
    with path.open("a") as journal:
        journal.write('{"time": 1.0, "event": "resu')
    assert replay(read_journal(folder))["t00"].epochs == 1
    assert not caplog.messages


def test_trials_are_shown_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    make(tmp_path, "good", trials=112)
    shown = [trial["id"] for trial in status("good", tmp_path)["sweeps"][0]["trials"]]
    assert shown == [f"t{number:02d}" for number in range(112)]


def test_the_latest_sweep_is_first_whatever_its_title(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "zebra-1", began=1e9)
    make(tmp_path, "apple-1", began=1.2e9)
    make(tmp_path, "mango-1", began=1.1e9)
    old = make(tmp_path, "told-no-time")
    os.utime(old / "sweep.json", (1.15e9, 1.15e9))
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        done = bgsweep("status", "--store", tmp_path, folder=tmp_path)
    finally:
        monkeypatch.undo()
        time.tzset()
    shown = [line.split()[:3] for line in done.stdout.splitlines()]
    assert [name for name, *_ in shown] == ["apple-1", "told-no-time", "mango-1", "zebra-1"]
    assert shown[0][1:] == ["2008-01-11", "02:50+05:30"]


def test_the_time_in_a_name_is_that_of_all_machines() -> None:
    found = re.fullmatch(r"mine-(\d{8}T\d{6})Z-[0-9a-f]{4}", sweep_name("mine"))
    assert found
    assert time.strptime(found[1], "%Y%m%dT%H%M%S")[:4] == time.gmtime()[:4]


@pytest.mark.parametrize("name", ["a/b", "../../x", "..", "", ".hidden", "a b", "-x", "/tmp/x"])
def test_a_name_that_no_folder_of_the_store_can_have_is_refused(name: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    done = bgsweep("sweep", TINY, RANGE, f"--name={name}", "--store", store, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {name!r}: not a name for a sweep; use letters, digits")
    assert not store.exists()
    for command in ("status", "stop", "report"):
        if name and not name.startswith("-"):
            assert "not a name for a sweep" in bgsweep(command, name, "--store", store, folder=tmp_path).stderr


@pytest.mark.parametrize(
    ("more", "cure"),
    [
        ({"result": {"model": 1}}, "choose another name or"),
        ({}, "resume that one by `bgsweep sweep --resume mine --store .*`"),
    ],
)
def test_the_name_of_another_sweep_is_refused(more: dict[str, Any], cure: str, tmp_path: Path) -> None:
    folder = make(tmp_path, "mine", **more)
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    with pytest.raises(UserError, match=f"--name mine: .* is there already; .*{cure}"):
        sweep(load(TINY, [RANGE]), tmp_path, "mine")
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before
    assert [path for path, _ in sweeps(tmp_path)] == [folder]
