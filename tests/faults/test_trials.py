"""Trials that hang or diverge: each is counted, told with its reason, and ends nothing else."""

import os
import signal
from pathlib import Path

from tests.faults.sweeps import TINY, actors, begin, ended, events, runs, told, wait_for


def test_hanging_and_diverging_trials_are_counted_told_and_let_the_others_go_on(tmp_path: Path) -> None:
    """The first trial stops for good where it stands; the second has a rate at which the loss is no number.

    Trials are evaluated at their end only, and write checkpoints before.
    """
    space = ["space.optimizer.lr={choice: [0.03, 1.0e+30]}", "space.points=[{optimizer.lr: 1.0e+30}, {}]"]
    search = ["search.scheduler=none", "search.trials=3", "search.concurrent=1", "search.max_failures=1"]
    length = ["training.epochs=12", "evaluate.every=12", "search.hang_minutes=0.75"]
    process = begin(tmp_path, str(TINY), *space, *search, *length)
    try:
        wait_for(lambda: events(tmp_path, "checkpoint"), process, tmp_path)
        (victim,) = actors(process.pid)
        os.kill(victim.pid, signal.SIGSTOP)
        found = ended(process, tmp_path)
    finally:
        process.kill()
    assert not victim.is_running()
    assert [result["epoch"] for result in events(tmp_path, "result")][:12] == list(range(1, 13))
    trials, log = found["trials"], told(tmp_path)
    assert [trial["status"] for trial in trials] == ["completed", "failed", "completed"]
    assert [trial["failures"] for trial in trials] == [1, 1, 0]
    assert "hangs: no progress for 0.75 minutes after " in trials[0]["error"] and "t00 failed (hangs" in log
    assert trials[1]["error"].startswith("Diverged: the loss is nan in epoch 1") and "t01 failed for good" in log
    recorded = [runs(found["tracking_uri"])[trial["id"]] for trial in trials]
    assert [run.info.status for run in recorded] == ["FINISHED", "FAILED", "FINISHED"]
    assert [run.data.tags.get("bgsweep.failures") for run in recorded] == ["1", "1", None]
    assert [run.data.tags.get("bgsweep.error") for run in recorded] == [trials[0]["error"], trials[1]["error"], None]
