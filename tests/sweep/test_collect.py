"""Checkpoints that stay, and those that are removed: while a sweep runs, and by `bgsweep gc` and `rm`."""

from pathlib import Path
from typing import Any

import pytest

from bgsweep.config import SweepConfig, load, resolve
from bgsweep.sweep.collect import kept_trials, unneeded
from bgsweep.sweep.events import Started
from bgsweep.sweep.journal import Journal, read_journal, read_records, replay
from bgsweep.sweep.manifest import write_manifest
from bgsweep.sweep.store import StoreSync
from bgsweep.sweep.trial import dump
from bgsweep.sweep.trial_record import TrialRecord
from tests.command import bgsweep

TINY = Path(__file__).parents[1] / "tiny.yaml"
ELSEWHERE = {"bgsweep.host": "another-machine", "bgsweep.pid": "1", "bgsweep.born": "0"}
SPACE = {"background.remove": {"uniform": [0, 0.8]}}


def record(number: int, status: Any, score: float, fixed: str | None = None, where: str = "") -> TrialRecord:
    metrics = {"knn_top1": score, "bg_gap": score}
    name = f"t{number:02d}"
    return TrialRecord(name, {"background.remove": 0.1}, fixed, "d", "r", status, 3, metrics, f"{where}/{name}")


def searched(**search: Any) -> SweepConfig:
    return resolve({"space": SPACE, "search": search, "evaluate": {"bg_gap": True}})


def test_the_best_stay_and_the_baseline_and_what_can_go_on() -> None:
    told = [
        record(0, "completed", 0.1, "baseline"),
        record(1, "completed", 0.5),
        record(2, "stopped", 0.9),
        record(3, "completed", 0.7),
        record(4, "failed", 0.0),
        record(5, "running", 0.0),
    ]
    records = {each.id: each for each in told}
    assert kept_trials(searched(keep_checkpoints=1), records) == {"t00", "t03", "t04", "t05"}
    assert kept_trials(searched(keep_checkpoints=2), records) == {"t00", "t01", "t03", "t04", "t05"}
    assert kept_trials(searched(keep_checkpoints=None), records) == set(records)
    lower = searched(keep_checkpoints=1, metric="loss", mode="min")
    for each in told:
        each.metrics["loss"] = 1 - each.metrics["knn_top1"]
    assert "t03" in kept_trials(lower, records) and "t01" not in kept_trials(lower, records)
    front = searched(keep_checkpoints=1, metric=["knn_top1", "bg_gap"], mode=["max", "min"], scheduler="none")
    assert kept_trials(front, records) >= {"t00", "t01", "t03"}, "no trial of the front beats another one"


def store_of(folder: Path, place: str = "") -> dict[str, TrialRecord]:
    """A sweep's folder after two drivers: t01 is the best, t02 was continued by the second driver and is running."""
    paths = {
        "t00": "tune-20260101-000000-1/t00/checkpoint_000002",
        "t01": "tune-20260101-000000-1/t01/checkpoint_000002",
        "t02": "tune-20260102-000000-2/t02/checkpoint_000001",
        "t03": "ray_train/t03-0123456789abcdef/checkpoint_2026-01-01_00-00-01.000001",
        "t04": "ray_train/t04-0123456789abcdef/checkpoint_2026-01-01_00-00-01.000001",
    }
    stale = [
        "tune-20260101-000000-1/t02/checkpoint_000001",
        "tune-20260102-000000-2/t02/checkpoint_000002",
        "ray_train/t03-0123456789abcdef/checkpoint_2026-01-01_00-00-00.000001",
        "ray_train/t04-0123456789abcdef/checkpoint_2026-01-01_00-00-00.000001",
        "taken_over/2/t01",
    ]
    for path in [*paths.values(), *stale]:
        (folder / path).mkdir(parents=True)
        (folder / path / "state.pt").write_bytes(b"x" * 1000)
    (folder / "tune-20260101-000000-1" / "t02" / "result.json").write_bytes(b"{}")
    states = [("completed", 0.1), ("completed", 0.9), ("running", 0.0), ("completed", 0.2), ("failed", 0.0)]
    records = {}
    for number, (status, score) in enumerate(states):
        one = record(number, status, score)
        one.checkpoint = f"{place or folder}/{paths[one.id]}"
        records[one.id] = one
    return records


def names(found: list[Any], root: str) -> set[str]:
    return {each.uri.removeprefix(f"{root}/") for each in found}


def test_what_no_trial_needs_is_found(tmp_path: Path) -> None:
    records = store_of(tmp_path)
    assert names(unneeded(tmp_path, records), str(tmp_path)) == {
        "tune-20260101-000000-1/t02/checkpoint_000001",  # the second driver has continued from it
        "ray_train/t03-0123456789abcdef/checkpoint_2026-01-01_00-00-00.000001",  # older than the trial's last one
    }
    records["t02"].status = records["t04"].status = "completed"
    assert names(unneeded(tmp_path, records), str(tmp_path)) == {
        "tune-20260101-000000-1/t02/checkpoint_000001",
        "tune-20260102-000000-2/t02/checkpoint_000002",
        "ray_train/t03-0123456789abcdef/checkpoint_2026-01-01_00-00-00.000001",
        "ray_train/t04-0123456789abcdef/checkpoint_2026-01-01_00-00-00.000001",
        "taken_over/2/t01",
    }
    # The store is given by another of its names than to the drivers that recorded the paths.
    (tmp_path / "link").symlink_to(tmp_path)
    for other in (tmp_path / "link", tmp_path / "taken_over" / ".."):
        assert names(unneeded(other, records), str(other)) == names(unneeded(tmp_path, records), str(tmp_path))


def ended_sweep(store: Path, folder: Path, place: str = "") -> None:
    write_manifest(
        folder,
        {
            "file": dump(load(TINY, ["space.background.remove={uniform: [0, 0.8]}", "search.keep_checkpoints=2"])),
            "digest": "d",
            "parent": "p",
            "owner": ELSEWHERE,
            "result": {"model": 1},
        },
    )
    journal = Journal(folder)
    for one in store_of(folder, place).values():
        journal.write(Started(trial=one))


def test_gc_removes_and_says_what_it_would_remove(tmp_path: Path) -> None:
    folder = tmp_path / "sweeps" / "one"
    ended_sweep(tmp_path, folder)
    words = ("gc", "one", "--keep", 1, "--store", tmp_path)
    told = bgsweep(*words, "--dry-run", folder=tmp_path)
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[-1] == "one: 4 checkpoints, 4 KiB, would be removed"
    assert f"{folder}/tune-20260101-000000-1/t00/checkpoint_000002" in told.stdout
    before = sorted(folder.rglob("state.pt"))
    assert len(before) == 10
    done = bgsweep(*words, folder=tmp_path)
    assert done.stdout == "one: 4 checkpoints, 4 KiB, removed\n", done.stderr
    records = read_records(folder)
    assert records == replay(read_journal(folder))
    assert {name: bool(each.checkpoint) for name, each in records.items()} == {
        "t00": False,
        "t01": True,
        "t02": True,
        "t03": False,
        "t04": True,
    }
    assert all(Path(each.checkpoint, "state.pt").exists() for each in records.values() if each.checkpoint)
    assert len(list(folder.rglob("state.pt"))) == 6
    assert bgsweep(*words, folder=tmp_path).stdout == "nothing to remove\n"
    assert bgsweep("status", "one", "--store", tmp_path, folder=tmp_path).stdout.startswith("one ")


def test_rm_removes_a_sweep_and_nothing_else(tmp_path: Path) -> None:
    for name in ("one", "two"):
        ended_sweep(tmp_path, tmp_path / "sweeps" / name)
    done = bgsweep("rm", "one", "--store", tmp_path, folder=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("removed one, "), done.stderr
    assert [path.name for path in (tmp_path / "sweeps").iterdir()] == ["two"]
    assert "no sweep one" in bgsweep("rm", "one", "--store", tmp_path, folder=tmp_path).stderr


def test_the_same_in_a_bucket(tmp_path: Path, s3: Any) -> None:
    folder = tmp_path / "sweeps" / "one"
    ended_sweep(tmp_path, folder, "s3://bucket/runs/sweeps/one")
    for path in folder.rglob("state.pt"):
        s3.upload_file(str(path), "bucket", f"runs/sweeps/one/{path.relative_to(folder)}")
    with StoreSync(folder, "s3://bucket/runs"):
        pass

    def left() -> int:
        keys = [item["Key"] for item in s3.list_objects_v2(Bucket="bucket").get("Contents", [])]
        return sum(key.endswith("state.pt") for key in keys)

    assert left() == 10
    done = bgsweep("gc", "--keep", 1, "--store", "s3://bucket/runs", folder=tmp_path)
    assert done.stdout == "one: 4 checkpoints, 4 KiB, removed\n", done.stderr
    assert left() == 6
    assert bgsweep("rm", "one", "--store", "s3://bucket/runs", folder=tmp_path).returncode == 0
    assert left() == 0


@pytest.mark.faults  # for its time
def test_a_sweep_keeps_the_best_checkpoints_only(tmp_path: Path) -> None:
    settings = ["search.trials=4", "search.keep_checkpoints=1", "search.scheduler=none", "training.epochs=1"]
    words = ["space.background.remove={uniform: [0.0, 0.8]}", "register.name=tiny", "--store", tmp_path, "--json"]
    done = bgsweep("sweep", TINY, *settings, *words, "--name", "one", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    records = read_records(tmp_path / "sweeps" / "one")
    having = {each.id for each in records.values() if each.checkpoint}
    assert having == kept_trials(load(TINY, [*settings, words[0]]), records) and len(having) <= 2  # type: ignore[list-item]
    assert len(list((tmp_path / "sweeps" / "one").rglob("state.pt"))) == len(having)
    assert "deleting" not in done.stderr
