"""The course of a sweep as its terminal tells it."""

import time

import pytest

from bgsweep.config import resolve
from bgsweep.sweep.progress import Progress
from bgsweep.sweep.trial_record import TrialRecord


@pytest.mark.parametrize("before", [0, 10])
def test_the_time_left_is_told_by_the_epochs_of_this_driver(before: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    progress = Progress("mine", resolve({"experiment": {"training": {"epochs": 100}}}), 20)
    records = [TrialRecord(f"t{number:02d}", {}, None, "", "", "completed", 100) for number in range(before)]
    progress.update(records)
    assert progress.seconds_left(records) is None
    now[0] += 60
    records.append(TrialRecord("new", {}, None, "", "", epochs=1))
    progress.update(records)
    assert progress.seconds_left(records) == pytest.approx(60 * (99 + 100 * (20 - before - 1)))
