"""Which trials of an earlier sweep lie inside a new sweep's space; test_changes.py has whole sweeps."""

from pathlib import Path
from typing import Any

import pytest

from bgsweep.config import resolve
from bgsweep.sweep.events import Ended, Started
from bgsweep.sweep.journal import Journal
from bgsweep.sweep.manifest import write_manifest
from bgsweep.sweep.trial import dump
from bgsweep.sweep.trial_record import TrialRecord
from bgsweep.sweep.warm_start import results_of_earlier

CHOICES: dict[str, list[Any]] = {
    "views.scale": [[0.2, 1.0], [0.08, 1.0]],
    "background.random": [[0.1, 0.2], {"from": 0.4, "to": 0}],
    "optimizer.betas": [[0.9, 0.95]],
}
ELSEWHERE = {"bgsweep.host": "another-machine", "bgsweep.pid": "1", "bgsweep.born": "0"}
SPACE = {"optimizer.lr": {"uniform": [0.01, 0.3]}}


def earlier(store: Path, values: dict[str, Any]) -> None:
    """A sweep with one trial."""
    folder = store / "sweeps" / "first"
    space = {**SPACE, **{key: {"choice": CHOICES[key]} for key in CHOICES.keys() & values.keys()}}
    config = resolve({"experiment": {"optimizer": {"name": "adamw"}}, "space": space})
    write_manifest(folder, {"file": dump(config), "digest": "d", "parent": "p", "owner": ELSEWHERE})
    journal = Journal(folder)
    one = TrialRecord("t00", values, None, "d", "run", "completed", 200, {"knn_top1": 0.5})
    journal.write(Started(trial=one))
    journal.write(Ended(trial=one))


@pytest.mark.parametrize(("key", "value"), [(key, each) for key, options in CHOICES.items() for each in options])
@pytest.mark.parametrize("still_searched", [True, False])
def test_a_trial_with_a_list_or_a_schedule_is_learned_from(
    tmp_path: Path, key: str, value: Any, still_searched: bool
) -> None:
    earlier(tmp_path, {"optimizer.lr": 0.1, key: value})
    section, _, leaf = key.partition(".")
    experiment: dict[str, Any] = {"optimizer": {"name": "adamw"}}
    space: dict[str, Any] = {**SPACE}
    if still_searched:
        space[key] = {"choice": CHOICES[key]}
    else:
        experiment[section] = {**experiment.get(section, {}), leaf: value}
    config = resolve({"experiment": experiment, "space": space, "search": {"warm_start": ["first"]}})
    (learned,), notes = results_of_earlier(config, tmp_path)
    assert notes == ["search.warm_start: 1 trials of first are learned from"]
    assert learned.values.keys() == space.keys() and learned.values["optimizer.lr"] == 0.1


def test_a_trial_with_another_list_is_left_out(tmp_path: Path) -> None:
    earlier(tmp_path, {"optimizer.lr": 0.1, "views.scale": [0.08, 1.0]})
    for views, searched, reason in (
        ({"scale": [0.3, 1.0]}, {}, "views.scale has another value"),
        ({}, {"views.scale": {"choice": [[0.3, 1.0], [0.5, 1.0]]}}, "views.scale outside the space"),
    ):
        experiment = {"optimizer": {"name": "adamw"}, "views": views}
        config = resolve(
            {"experiment": experiment, "space": {**SPACE, **searched}, "search": {"warm_start": ["first"]}}
        )
        found, notes = results_of_earlier(config, tmp_path)
        assert not found and notes[0].endswith(f"1 left out: {reason}")
