"""Drivers that are suspended, while another takes the sweep over, or asked to end."""

import json
import signal
from pathlib import Path

import pytest

from bgsweep.sweep.events import Ended, Result
from bgsweep.sweep.journal import read_journal
from bgsweep.training import load_checkpoint
from tests.faults.sweeps import SPACE, TINY, begin, ended, events, outcome, output, runs, told, wait_for

SEARCH = ["search.trials=3", "search.scheduler=none", "search.concurrent=1", "name=tiny", "training.epochs=20"]


def test_a_suspended_driver_that_wakes_up_after_another_took_over_ends_and_changes_nothing(tmp_path: Path) -> None:
    first = begin(tmp_path, str(TINY), *SPACE, *SEARCH)
    try:
        wait_for(lambda: len(events(tmp_path, "result")) >= 3, first, tmp_path)
        first.send_signal(signal.SIGSTOP)
        (folder,) = (tmp_path / "bgsweep_runs/sweeps").iterdir()
        claim = folder / "owners" / "00001"  # of a machine whose processes cannot be looked up
        claim.write_text(json.dumps(json.loads(claim.read_text()) | {"bgsweep.host": "elsewhere"}))
        (tmp_path / "second").mkdir()
        store = ["--store", str(tmp_path / "bgsweep_runs")]
        second = begin(tmp_path / "second", "--resume", folder.name, *store)
        wait_for(lambda: (folder / "owners" / "00002").exists(), second, tmp_path / "second")
        first.send_signal(signal.SIGCONT)
        output(first, tmp_path)
        assert first.returncode == 2, told(tmp_path)
        assert "has taken this sweep over; this one ends without writing more" in told(tmp_path).splitlines()[-1]
        assert "Traceback" not in told(tmp_path)
        found = ended(second, tmp_path / "second")
    finally:
        first.kill()
    assert [trial["epochs"] for trial in found["trials"]] == [20] * 3
    every = read_journal(folder)
    results = [(event.id, event.epoch) for event in every if isinstance(event, Result)]
    assert len(results) == len(set(results)) == 60
    assert sum(isinstance(event, Ended) for event in every) == 3
    assert {run.info.status for run in runs(found["tracking_uri"]).values()} == {"FINISHED"}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_driver_that_gets_sigterm_has_its_trial_write_a_checkpoint_within_the_epoch_and_it_goes_on_from_there(
    workers: int, tmp_path: Path
) -> None:
    # Epochs of ten seconds, so that the request comes within one: trials give a sign of life every other second.
    length = ["training={epochs: 3, batch_size: 4}", "views.size=32", "data.resize=40", "encoder.width=32"]
    length += ["evaluate.every=3", "search.trials=1", f"workers.count={workers}"]
    found = []
    for name in ("quiet", "stopped"):
        folder = tmp_path / name
        folder.mkdir()
        process = begin(folder, str(TINY), *SPACE, *length, "search.scheduler=none", "register.name=tiny")
        if name == "stopped":
            wait_for(lambda folder=folder: len(events(folder, "result")) >= 1, process, folder)
            process.send_signal(signal.SIGTERM)
            output(process, folder)
            assert process.returncode == 130 and told(folder).splitlines()[-1] == "error: interrupted"
            last = events(folder, "checkpoint")[-1]["path"]
            state = load_checkpoint(Path(last) / "state.pt")
            assert state.get("step", 0) > 0 and 1 <= state["epoch"] < 3
            (sweep,) = (folder / "bgsweep_runs/sweeps").iterdir()
            process = begin(folder, "--resume", sweep.name)
        found.append(ended(process, folder))
    assert outcome(found[1]) == outcome(found[0])
    assert found[1]["best"]["metrics"] == found[0]["best"]["metrics"]
    # Several workers may have finished an epoch, with a checkpoint, while the driver left.
    told_of = [each["epoch"] for result in events(tmp_path / "stopped", "result") for each in result["history"]]
    assert told_of == [1, 2, 3]
