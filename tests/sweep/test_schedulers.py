"""Schedulers stop, pause and exploit the same trials whether or not the driver died in between."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune import Checkpoint
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from bgsweep.config import Distribution, SweepConfig, resolve
from bgsweep.config.base import dotted
from bgsweep.sweep.events import Event, Result, Started
from bgsweep.sweep.pbt import PBTScheduler, explore
from bgsweep.sweep.schedulers import build_scheduler
from bgsweep.sweep.searcher import CHECKPOINT, FIXED, NUMBER, VALUES, fixed_points
from bgsweep.sweep.trial_record import Exchange, TrialRecord

SPACE = {"optimizer.lr": {"loguniform": [0.01, 1.0]}, "background.fill": {"choice": ["black", "mean", "noise"]}}


def make(epochs: int, **search: Any) -> SweepConfig:
    return resolve({"experiment": {"training": {"epochs": epochs}}, "space": SPACE, "search": search})


def trial(number: int, fixed: str | None = None) -> Any:
    return SimpleNamespace(config={NUMBER: number, FIXED: fixed})


FRONTS = {"metric": ["knn_top1", "bg_gap"], "scheduler": "asha"}


@pytest.mark.parametrize(
    "kind",
    [
        {"scheduler": "asha"},
        {"scheduler": "median"},
        FRONTS,
        {**FRONTS, "scheduler_options": {"spread": "epsilon_net"}},
    ],
)
def test_a_resumed_scheduler_decides_as_the_first_would_have(kind: dict[str, Any]) -> None:
    file = make(8, grace_epochs=2, reduction=2, **kind)
    draw = random.Random(1)
    heights = [draw.random() for _ in range(12)]
    events: list[Event] = []
    decisions: dict[bool, list[tuple[int, int, str]]] = {False: [], True: []}
    for broken in (False, True):
        scheduler: Any = build_scheduler(file)[0]
        events.clear()
        for number, height in enumerate(heights):
            if broken and number == 6:
                scheduler, _ = build_scheduler(file, events)
            one = trial(number, "baseline" if number == 0 else None)
            scheduler.on_trial_add(None, one)
            events.append(Started(trial=TrialRecord(f"t{number:02d}", {}, one.config[FIXED], "", "")))
            for epoch in range(1, 9):
                result = {"epoch": epoch, "knn_top1": height * epoch, "bg_gap": abs(height - 0.7)}
                decision = scheduler.on_trial_result(None, one, result)
                events.append(Result(id=f"t{number:02d}", epoch=epoch, metrics=result, seconds=1.0))
                decisions[broken].append((number, epoch, decision))
                if decision == TrialScheduler.STOP:
                    break
    assert decisions[True] == decisions[False]
    ends = {number: epoch for number, epoch, _ in decisions[False]}
    assert ends[0] == 8, "the baseline was stopped"
    assert min(ends.values()) >= 2 and sum(end < 8 for end in ends.values()) >= 3


@pytest.mark.parametrize("metric", ["knn_top1", ["knn_top1", "bg_gap"]])
@pytest.mark.parametrize(("every", "stops"), [(1, {1, 3, 9, 27}), (3, {3, 9, 27}), (5, {5, 10, 30}), (10, {10, 30})])
def test_trials_are_judged_once_a_rung_where_evaluations_skip_some(metric: Any, every: int, stops: set[int]) -> None:
    file = make(50, grace_epochs=1, reduction=3, metric=metric, scheduler="asha")
    scheduler: Any = build_scheduler(file)[0]
    draw, left, ends = random.Random(0), [trial(number) for number in range(1, 200)], set()
    for one in left:
        scheduler.on_trial_add(None, one)
    for epoch in range(every, 50, every):
        draw.shuffle(left)
        for one in list(left):
            result = {"epoch": epoch, "knn_top1": draw.random(), "bg_gap": draw.random()}
            if scheduler.on_trial_result(None, one, result) == TrialScheduler.STOP:
                left.remove(one)
                ends.add(epoch)
    assert ends == stops


@pytest.mark.parametrize("kind", ["asha", "median"])
def test_a_baseline_worse_than_all_others_runs_to_its_end_also_after_a_restart(kind: str) -> None:
    file = make(8, grace_epochs=2, scheduler=kind)
    scheduler: Any = build_scheduler(file)[0]
    trials = [trial(number, None if number else "baseline") for number in range(6)]
    events: list[Event] = [
        Started(trial=TrialRecord(f"t{one.config[NUMBER]:02d}", {}, one.config[FIXED], "", "")) for one in trials
    ]
    for one in trials:
        scheduler.on_trial_add(None, one)
    for epoch in range(1, 8):
        for one in reversed(trials):  # side by side, so that the baseline is compared with all others
            result = {"epoch": epoch, "knn_top1": 0.5 if one.config[NUMBER] else 0.25}
            assert scheduler.on_trial_result(None, one, result) == TrialScheduler.CONTINUE
            events.append(Result(id=f"t{one.config[NUMBER]:02d}", epoch=epoch, metrics=result, seconds=1.0))
        if epoch == 5:
            scheduler, stopped = build_scheduler(file, events)
            assert not stopped


class Member:
    """The attributes of Tune's trials that population-based training reads."""

    def __init__(self, folder: Path, number: int, values: dict[str, Any], fixed: str | None) -> None:
        self.config = {NUMBER: number, FIXED: fixed, VALUES: values, CHECKPOINT: None}
        self.status = Trial.PAUSED
        self.last_result = {"training_iteration": number}
        self.run_metadata = SimpleNamespace(checkpoint_manager=SimpleNamespace(_latest_checkpoint_result=None))
        (folder / f"own-{number}").mkdir()
        (folder / f"own-{number}" / "state.pt").write_text(str(number))
        self.checkpoint = Checkpoint.from_directory(str(folder / f"own-{number}"))

    def is_finished(self) -> bool:
        return False

    def set_config(self, config: dict[str, Any]) -> None:
        self.config = config


def population(folder: Path, told: list[tuple[int, list[Exchange]]], size: int) -> PBTScheduler:
    file = make(9, scheduler="pbt", perturb_epochs=3)
    return PBTScheduler(file, folder / "copies", size, lambda: 8, lambda epoch, found: told.append((epoch, found)))


def test_the_worst_go_on_from_copies_of_the_best_once_all_are_there(tmp_path: Path) -> None:
    told: list[tuple[int, list[Exchange]]] = []
    scheduler: Any = population(tmp_path, told, 8)
    members = [
        Member(tmp_path, number, {"optimizer.lr": 0.1, "background.fill": "mean"}, None if number else "baseline")
        for number in range(8)
    ]
    controller = SimpleNamespace(get_trials=lambda: members)
    for number, member in enumerate(members):
        assert scheduler.on_trial_result(controller, member, {"epoch": 2, "knn_top1": 0.0}) == TrialScheduler.CONTINUE
        score = {"epoch": 3, "knn_top1": number / 10}
        assert scheduler.on_trial_result(controller, member, score) == TrialScheduler.PAUSE
        if number < 7:
            assert scheduler.choose_trial_to_run(controller) is members[number + 1], "it waits, the next one trains"
    assert not told
    assert scheduler.choose_trial_to_run(controller) is members[0]
    ((epoch, exchanges),) = told
    assert epoch == 3 and [each.id for each in exchanges] == ["t01"], "a quarter of eight, but not the baseline"
    (exchange,) = exchanges
    assert exchange.donor in ("t06", "t07")
    assert (Path(exchange.checkpoint) / "state.pt").read_text() == str(int(exchange.donor[1:]))
    assert members[1].config[VALUES] == exchange.values != members[2].config[VALUES]
    found = members[1].run_metadata.checkpoint_manager._latest_checkpoint_result
    assert found.checkpoint.path == exchange.checkpoint
    assert [member.config[VALUES]["optimizer.lr"] for member in members[2:]] == [0.1] * 6
    failed = tmp_path / "copies/taken_over/3/t08"  # of a trial that failed before it had a checkpoint of its own
    failed.mkdir()
    # In the last generation nobody waits any more.
    for member in members:
        scheduler.on_trial_result(controller, member, {"epoch": 6, "knn_top1": 0.5})
    scheduler.choose_trial_to_run(controller)
    assert [epoch for epoch, _ in told] == [3, 6]
    assert list((tmp_path / "copies/taken_over/3").iterdir()) == [failed]
    assert scheduler.on_trial_result(controller, members[0], {"epoch": 9, "knn_top1": 0.5}) == TrialScheduler.CONTINUE


@pytest.mark.parametrize(
    "space",
    [
        {"background.random.from": {"uniform": [0.0, 0.5]}},
        {"background.random.from": {"uniform": [0.0, 0.5]}, "background.random.to": {"uniform": [0.0, 0.2]}},
        {"background.random": {"uniform": [0.0, 0.5]}, "points": [{"background.random": 0.3}]},
        {"optimizer.lr": {"loguniform": [0.01, 1.0]}},
    ],
)
def test_who_takes_over_from_the_baseline_keeps_the_augmentations_that_are_not_searched(
    tmp_path: Path, space: dict[str, Any]
) -> None:
    """The baseline has them switched off, and a schedule that is off has no parts."""
    file = resolve(
        {
            "experiment": {
                "training": {"epochs": 9},
                "background": {"remove": 0.2, "random": {"from": 0.4, "to": 0.1}},
            },
            "space": {"points": [{}], **space},
            "search": {"trials": 8, "scheduler": "pbt", "perturb_epochs": 3},
        }
    )
    (fixed, off), (_, point) = fixed_points(file)
    told: list[list[Exchange]] = []
    scheduler: Any = PBTScheduler(file, tmp_path / "copies", 2, lambda: 8, lambda _, found: told.append(found))
    members = [Member(tmp_path, 0, off, fixed), Member(tmp_path, 1, point, None)]
    for member, score in zip(members, (0.9, 0.1), strict=True):
        scheduler.on_trial_result(None, member, {"epoch": 3, "knn_top1": score})
    scheduler.choose_trial_to_run(SimpleNamespace(get_trials=lambda: members))
    ((exchange,),) = told
    searched = file.space.parameters.keys()
    assert exchange.donor == "t00" and exchange.values.keys() == searched
    before, after = (
        dotted(each.model_dump()) for each in (file.experiment, file.experiment.with_values(exchange.values))
    )
    fixed_keys = [key for key in before if not any(f"{key}.".startswith(f"{one}.") for one in searched)]
    assert {"background.remove", "training.epochs"} <= set(fixed_keys)
    assert [after[key] for key in fixed_keys] == [before[key] for key in fixed_keys]


def test_explored_values_stay_in_their_distribution() -> None:
    draw = random.Random(0)
    rates = Distribution(loguniform=(0.01, 1.0))
    steps = Distribution(quniform=(0.0, 1.0, 0.25))
    fills = Distribution(choice=("black", "mean", "noise"))
    found = [explore(0.1, rates, draw) for _ in range(400)]
    assert all(0.01 <= value <= 1.0 for value in found)
    assert 0.6 < sum(round(value, 6) in (0.08, 0.12) for value in found) / 400 < 0.9
    assert {explore(0.5, steps, draw) for _ in range(100)} <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert {explore("black", fills, draw) for _ in range(100)} == {"black", "mean", "noise"}
    assert explore(0.95, Distribution(uniform=(0.0, 1.0)), random.Random(3)) <= 1.0


def test_the_next_of_options_that_are_lists_or_schedules_is_found_from_the_experiment_s_own_value() -> None:
    """Three of four times a neighbour, so that the far end is rare: a value that is not found would be drawn anew."""
    falling = {"from": 0.4, "to": 0.0}
    for options, own in (
        ([[0.5, 1.0], [0.2, 1.0], [0.1, 1.0], [0.05, 1.0]], (0.5, 1.0)),
        ([falling, 0.1, 0.2, [0.1, 0.2]], {**falling, "course": "linear"}),
    ):
        draw = random.Random(0)
        found = [explore(own, Distribution(choice=tuple(options)), draw) for _ in range(400)]
        assert all(each in options for each in found) and sum(each == options[3] for each in found) < 50
