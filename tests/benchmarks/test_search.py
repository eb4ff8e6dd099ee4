"""The replay of searches on a small made table: what it counts, what searchers are told, and the table it prints."""

import json
import math
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
GOALS = ("mixed_rand", "bg_gap")


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import search

    return search


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Fourteen trials of 8 epochs, as `metrics.py` writes them, and one without a curve."""
    for number in range(14):
        draw = np.random.default_rng(number)
        random, rate = float(draw.choice([0, 0.15, 0.3, 0.45])), float(np.exp(draw.uniform(*np.log([0.01, 0.3]))))

        def at(epoch: int, random: float = random, number: int = number) -> dict[str, float]:
            top, gap = 0.03 * epoch + 0.01 * number, 0.4 - 0.5 * random - 0.01 * epoch
            return {"knn_top1": top, "mixed_rand": top - gap, "bg_gap": gap}

        trial = {"group": ["moco_v2", "simclr"][number % 2], "epochs": 8, "values": at(8)}
        trial |= {"curve": {epoch: at(epoch) for epoch in (2, 4, 6)}}
        trial |= {"background.remove": 0.15, "background.random": random, "optimizer.lr": rate}
        (tmp_path / f"{number:04d}-8.json").write_text(json.dumps(trial))
    (tmp_path / "0014-8.json").write_text(json.dumps({"diverged": "loss", "curve": {}}))
    return tmp_path


def test_without_stopping_each_trial_is_used_once_and_the_front_is_whole(search: ModuleType, folder: Path) -> None:
    trials = search.recorded(folder)
    assert len(trials) == 14
    ends = [[one.curve[8]["mixed_rand"], -one.curve[8]["bg_gap"]] for one in trials]
    box = search.Box.around(ends)
    for name, simulate in (("TPE, none stopped", search.with_scheduler), ("TPE, freeze-thaw", search.freeze_thaw)):
        course = simulate(search.config_of(trials, GOALS, search.SETTINGS[name]), trials, 3, box)
        assert course[-1][0] == 14 * 8
        assert sorted(scores for _, scores in course) == sorted(ends), name
        shares = [share for _, share in search.over_epochs(course, box)]
        assert shares == sorted(shares) and shares[-1] == pytest.approx(1)
    stopped = search.with_scheduler(search.config_of(trials, GOALS, search.SETTINGS["TPE, ASHA"]), trials, 3, box)
    assert 0 < len(stopped) < 14 and stopped[-1][0] < 14 * 8


def test_a_searcher_learns_the_values_of_the_trial_that_was_played(search: ModuleType, folder: Path) -> None:
    trials = search.recorded(folder)
    import replay

    sweep = replay.Sweep(search.config_of(trials, GOALS, search.SETTINGS["TPE, none stopped"]), trials)
    name, found = sweep.begin()
    assert found not in sweep.left and len(sweep.left) == 13
    sweep.end(name, 8, sweep.measure(name, found, 8))
    told = [each.params for each in sweep._searcher._study.trials if each.state.name == "COMPLETE"]
    assert told == [found.values]


@pytest.mark.parametrize("goals", [1, 2])
def test_what_a_point_adds_is_the_difference_of_hypervolumes(search: ModuleType, goals: int) -> None:
    draw = np.random.default_rng(goals)
    box = search.Box.around(draw.random((9, goals)).tolist())
    for size in (0, 1, 5):
        front, points = draw.random((size, goals)).tolist(), draw.uniform(-0.1, 1.1, (30, goals))
        added = [(box.volume([*front, each]) - box.volume(front)) * box.whole for each in points.tolist()]
        assert box.gains(front, points) == pytest.approx(added)


def test_the_table_compares_all_settings_and_counts_what_never_came(search: ModuleType, folder: Path) -> None:
    trials = search.recorded(folder)
    body, found = search.judged(trials, GOALS, 2, 3)
    assert body.count("\n| ") == len(search.SETTINGS) + 2
    assert found["TPE, none stopped"]["shares"][112] == [1, 1]
    assert search.judged(trials, GOALS, 2, 3)[1] == found, "seeds decide"
    assert search.ratio([10, math.inf], [10, 20], 40)[0] == pytest.approx(25 / 15)
    assert search.spread([10.0, 20.0, math.inf]) == "20 [10 to never]"


def test_trials_in_one_file_are_those_of_the_folder(search: ModuleType, folder: Path, tmp_path: Path) -> None:
    trials, file = search.recorded(folder), tmp_path / "trials.jsonl"
    file.write_text("\n".join(search.lines_of(trials)))
    assert search.recorded(file) == trials


def test_the_recorded_trials_are_replayed_where_no_folder_is_named(search: ModuleType) -> None:
    trials = search.recorded(search.MEASURED)
    assert len(trials) == 60 and all(max(one.curve) == 12 for one in trials)
    every = {goal for goals in search.GOALS for goal in goals}
    assert all(every <= at.keys() for one in trials for at in one.curve.values())
    assert search.MEASURED.stat().st_size < 150_000


@pytest.mark.parametrize("name", ["TPE, ASHA", "TPE, freeze-thaw"])
def test_trials_of_a_known_function_count_without_their_noise(search: ModuleType, name: str) -> None:
    options = Namespace(made=16, sweeps=1, workers=3, without=f"^(?!{name}$)")
    body, found = search.judged_by_function(options)
    assert list(found) == [name] and body.count("\n| ") == 2
    (course,) = found[name]
    shares = [share for _, share in course]
    assert shares == pytest.approx(sorted(shares)) and 0 < shares[-1] < 1 and course[-1][0] <= 16 * 12


def test_proposals_for_a_known_function_are_not_moved(search: ModuleType) -> None:
    import replay

    config = search.config_of(search.recorded(search.MEASURED), ("knn_top1", "bg_gap"), search.SETTINGS["TPE, ASHA"])
    sweep = replay.MadeSweep(config, 4)
    name, found = sweep.begin()
    metrics = sweep.measure(name, found, 12)
    sweep.end(name, 12, metrics)
    ends = replay.made_ends(found.values)
    assert sweep.course == [(2, [ends["knn_top1"], -ends["bg_gap"]])] and len(sweep.left) == 3
    assert metrics["knn_top1"] != ends["knn_top1"]
    told = [each.params for each in sweep._searcher._study.trials if each.state.name == "COMPLETE"]
    assert told == [found.values]


def test_over_all_pairs_a_setting_is_compared_with_the_best_of_bgsweeps_own(search: ModuleType) -> None:
    pairs = [
        {"A": {"epochs": [100.0] * 4}, "B": {"epochs": [80.0] * 4}, "freeze-thaw": {"epochs": [40.0] * 4}},
        {"A": {"epochs": [100.0] * 4}, "B": {"epochs": [math.inf] * 4}, "freeze-thaw": {"epochs": [90.0] * 4}},
    ]
    body = search.verdict(pairs, 200)
    assert "of those of A:" in body
    assert "| B | 1.26 [1.26, 1.26] |" in body and "| freeze-thaw | 0.60 [0.60, 0.60] |" in body
