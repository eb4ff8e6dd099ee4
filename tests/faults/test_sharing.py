"""Trials that share views and images have the results of separate ones, also where one is killed or stands still."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from tests.faults.sweeps import SPEED, TINY, actors, begin, ended, events, wait_for

# Trials of the same batches; with three epochs of six steps each they are near each other all the time.
SPACE = ["space.background.remove={choice: [0.0, 0.1, 0.3]}", "space.optimizer.lr={choice: [0.03, 0.1]}"]
SEARCH = ["search.scheduler=none", "search.algorithm=random", "search.trials=4", "search.concurrent=2"]
LENGTH = ["training.epochs=6", "training.batch_size=160", "search.hang_minutes=20"]


def results(folder: Path) -> dict[Any, dict[str, Any]]:
    """The metrics of each trial in each epoch, but for times."""
    return {
        (event["id"], metrics["epoch"]): {name: value for name, value in metrics.items() if name not in SPEED}
        for event in events(folder, "result")
        for metrics in event["history"]
    }


def searched(folder: Path, *words: str) -> dict[Any, dict[str, Any]]:
    folder.mkdir()
    ended(begin(folder, str(TINY), *SPACE, *SEARCH, *LENGTH, *words), folder)
    return results(folder)


def test_trials_that_share_report_what_separate_ones_do_whatever_becomes_of_the_others(tmp_path: Path) -> None:
    separate = searched(tmp_path / "separate", "search.share_views=false", "data.cache=false")
    assert len(separate) == 24
    assert searched(tmp_path / "shared") == separate
    folder = tmp_path / "killed"
    folder.mkdir()
    process = begin(folder, str(TINY), *SPACE, *SEARCH, *LENGTH)
    try:
        wait_for(lambda: len(events(folder, "checkpoint")) > 1 or None, process, folder)
        victim, *others = actors(process.pid)
        os.kill(victim.pid, signal.SIGKILL)
        if others:  # for longer than anybody waits
            os.kill(others[0].pid, signal.SIGSTOP)
            time.sleep(6)
            os.kill(others[0].pid, signal.SIGCONT)
        ended(process, folder)
    finally:
        process.kill()
    assert results(folder) == separate
