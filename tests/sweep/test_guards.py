"""The driver's guards, and the reasons that it gives for failed trials."""

import errno
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.tune.experiment import Trial

from bgsweep.config import resolve
from bgsweep.distributed.trial_board import Beat
from bgsweep.sweep.callbacks import SweepCallback, reason_of
from bgsweep.sweep.early_checkpoints import EarlyCheckpoints
from bgsweep.sweep.events import Waits, read_event
from bgsweep.sweep.guards import DiskGuard, HangGuard
from bgsweep.sweep.progress import shorten
from bgsweep.sweep.search import no_retry_of_diverged
from bgsweep.sweep.searcher import NUMBER
from bgsweep.sweep.trial_record import TrialRecord

KILLED = """Failure # 1 (occurred at 2026-11-23_06-42-48)
The actor died unexpectedly before finishing this task.
\tclass_name: with_resources.<locals>.ResourceTrainable
\tpid: 1447
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker \
unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was killed
"""
RAISED = """Failure # 1 (occurred at 2026-11-23_06-42-48)
The actor died unexpectedly before finishing this task.

Failure # 2 (occurred at 2026-11-23_06-43-00)
ray::ResourceTrainable.train() (pid=1, ip=192.0.2.2, actor_id=1, repr=ResourceTrainable)
  File "trainable.py", line 1, in train
{error}
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            KILLED,
            "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
            "Worker unexpectedly exits with a connection error code 2. End of file.",
        ),
        (RAISED.format(error="bgsweep.training.trainer.Diverged: the loss is nan"), "Diverged: the loss is nan"),
        (RAISED.format(error="bgsweep.errors.WorkersFailed: worker 1 died: killed"), "worker 1 died: killed"),
        (
            RAISED.format(
                error="ray.train.ControllerError: Training failed due to controller error:\nThe worker group startup "
                "timed out after 60.0 seconds waiting for 2 workers. Potential causes include: (1) too"
            ),
            "The worker group startup timed out after 60.0 seconds waiting for 2 workers.",
        ),
        (RAISED.format(error="bgsweep.errors.UserError: x.png: not an image"), "x.png: not an image"),
    ],
)
def test_the_last_failure_is_told_in_a_line(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "error.txt").write_text(text, encoding="utf-8")
    assert reason_of(SimpleNamespace(error_file=tmp_path / "error.txt")) == reason


@pytest.mark.parametrize(
    ("text", "again"),
    [
        (KILLED, True),
        (RAISED.format(error="bgsweep.errors.UserError: x.png: not an image"), True),
        (RAISED.format(error="bgsweep.training.trainer.Diverged: the loss is nan"), False),
    ],
)
def test_a_trial_whose_loss_is_no_number_is_not_retried(text: str, again: bool, tmp_path: Path) -> None:
    (tmp_path / "error.txt").write_text(text, encoding="utf-8")
    trial = SimpleNamespace(
        error_file=tmp_path / "error.txt", max_failures=2, run_metadata=SimpleNamespace(num_failures=1)
    )
    with no_retry_of_diverged():
        assert Trial.should_recover(trial) is again
    assert Trial.should_recover(trial)


def test_a_disk_is_full_before_its_last_bytes_and_when_a_checkpoint_found_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = DiskGuard(tmp_path)
    disk.look()
    disk.learn("Diverged: the loss is nan")
    assert not disk.full
    disk.learn(f"OSError: [Errno 28] {os.strerror(errno.ENOSPC)}")
    assert disk.full == f"{tmp_path}: OSError: [Errno 28] No space left on device"
    disk = DiskGuard(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=40 * 2**20))
    disk.look()
    assert disk.full == f"{tmp_path}: 40 MiB are free, too little to go on"


def callback(**search: object) -> SweepCallback:
    """The driver's callback without a journal, MLflow or a terminal; what it writes is in its ``told``."""
    made = object.__new__(SweepCallback)
    made.config = resolve({"search": search})
    made._failed_at, made._waits, made._spent, made._runs = {}, {}, {}, {"t00": "run"}
    made.records = {"t00": TrialRecord("t00", {}, None, "", "")}
    made.told = []
    made.journal = SimpleNamespace(write=lambda event: made.told.append(event) or event)
    made.progress = SimpleNamespace(note=made.told.append)
    made.tracker = SimpleNamespace(
        set_tag=lambda *words: made.told.append(words), set_tags=lambda *_: None, log_metrics=lambda *_: None
    )
    made._hangs, made.disk, made.early = HangGuard("auto"), DiskGuard(Path.cwd()), EarlyCheckpoints(drains=False)
    made.overview = SimpleNamespace(result=lambda _: None)
    return made


@pytest.mark.parametrize(("refill", "epoch", "failures"), [(10, 13, 2), (10, 14, 0), (1, 5, 0), (None, 199, 2)])
def test_a_trial_that_gets_beyond_its_last_failure_has_all_its_restarts_again(
    refill: int | None, epoch: int, failures: int
) -> None:
    made = callback(refill_epochs=refill, max_failures=3)
    trial = SimpleNamespace(max_failures=2, run_metadata=SimpleNamespace(num_failures=2))
    made._refill(made.records["t00"], trial, 200)
    assert trial.run_metadata.num_failures == 2, "it had not failed"
    made._failed_at["t00"] = 4
    made._refill(made.records["t00"], trial, epoch)
    assert (trial.run_metadata.num_failures, trial.max_failures) == (failures, 2 if failures else 3)


def test_a_trials_seconds_are_those_in_which_it_has_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    made, now = callback(), [1000.0]
    made.progress.warn = lambda _: None
    monkeypatch.setattr(time, "time", lambda: now[0])
    record = made.records["t00"]
    record.run_id, record.epochs, record.seconds = "run", 2, 100.0  # of an earlier driver
    trial = SimpleNamespace(config={NUMBER: 0}, error_file=None)

    def reports(epoch: int) -> float:
        made.on_trial_result(0, [], trial, {"epoch": epoch, "history": [{"epoch": epoch}]})
        return record.seconds

    now[0] += 3600  # until there is a place
    made.on_trial_start(0, [], trial)
    now[0] += 50
    assert reports(3) == 150
    now[0] += 20
    made.on_trial_recover(0, [], trial)
    now[0] += 3600
    made.on_trial_start(0, [], trial)
    now[0] += 30
    assert reports(4) == 200, "an epoch that was lost has been paid for"
    now[0] += 3600  # paused, by pbt
    made.on_trial_start(0, [], trial)
    now[0] += 5
    assert reports(5) == 205


def test_a_wait_for_nodes_is_told_as_it_goes_on_and_recorded_once() -> None:
    made, lines = (
        callback(),
        ["waiting for the cluster to grow, 0.0 of 60", "waiting for the cluster to grow, 0.5 of 60"],
    )
    for line in (lines[0], lines[0], lines[1]):
        made._tell_waits({"t00": Beat(1, "its start", None, "node", line)})
    assert made.records["t00"].waiting == lines[0] and lines[0] in shorten(made.records["t00"])
    made._tell_waits({"t00": Beat(2, "its start", None, "node")})
    assert not made.records["t00"].waiting
    events = [each for each in made.told if isinstance(each, Waits)]
    assert [event.reason for event in events] == [lines[0], ""]
    assert [read_event(event.public()) for event in events] == events
    assert [each for each in made.told if isinstance(each, str)] == [f"t00 is {line}" for line in lines]
    assert [each for each in made.told if isinstance(each, tuple)] == [
        ("run", "bgsweep.waiting", lines[0]),
        ("run", "bgsweep.waiting", ""),
    ]
