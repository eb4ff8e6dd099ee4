"""Proposals: fixed points first, then those of each searcher, which a seed makes repeatable."""

import json
from typing import Any

import pytest
from ray.tune.search import Searcher

from bgsweep.config import SweepConfig, resolve
from bgsweep.config.search import SEARCHERS
from bgsweep.sweep.events import Ended, Event, Result, Started, read_event
from bgsweep.sweep.searcher import FIXED, VALUES, TuneSearcher, total_trials
from bgsweep.sweep.searchers.sampled import TPESearcher
from bgsweep.sweep.trial_record import Status, TrialRecord

SPACE: dict[str, Any] = {
    "background.remove": {"uniform": [0.0, 0.8]},
    "optimizer.lr": {"loguniform": [0.01, 1.0]},
    "points": [{}, {"optimizer.lr": 0.5}],
}


def make(space: dict[str, Any] = SPACE, **search: Any) -> SweepConfig:
    experiment = {"background": {"remove": 0.3, "random": 0.2}}
    return resolve({"experiment": experiment, "space": space, "search": {"trials": 8, **search}})


def play(proposals: TuneSearcher) -> list[dict[str, Any]]:
    """Ask until nothing more comes; every trial ends with a score that its own values decide."""
    given: list[dict[str, Any]] = []
    while (config := proposals.suggest(str(len(given)))) != Searcher.FINISHED:
        assert isinstance(config, dict)
        score = -abs(config[VALUES]["background.remove"] - 0.5)
        proposals.on_trial_result(str(len(given)), {"epoch": 1, "knn_top1": score})
        proposals.on_trial_complete(str(len(given)), {"epoch": 200, "knn_top1": score})
        given.append(config)
    return given


def test_baseline_and_fixed_points_come_first_with_the_experiments_values_where_they_name_none() -> None:
    given = play(TuneSearcher(make()))
    assert [config[FIXED] for config in given] == ["baseline", "point 1", "point 2"] + [None] * 5
    assert given[0][VALUES] == {"background.remove": 0.0, "background.random": 0.0, "optimizer.lr": 0.03}
    assert given[1][VALUES] == {"background.remove": 0.3, "optimizer.lr": 0.03}
    assert given[2][VALUES] == {"background.remove": 0.3, "optimizer.lr": 0.5}


def test_proposals_lie_in_the_space_and_differ() -> None:
    values = [config[VALUES] for config in play(TuneSearcher(make(trials=20))) if config[FIXED] is None]
    assert all(0 <= v["background.remove"] <= 0.8 and 0.01 <= v["optimizer.lr"] <= 1.0 for v in values)
    assert len({v["optimizer.lr"] for v in values}) == len(values) == 17


@pytest.mark.parametrize("algorithm", [name for name, each in SEARCHERS.items() if not each.exhaustive])
def test_the_seed_decides(algorithm: str) -> None:
    first, again, other = (play(TuneSearcher(make(algorithm=algorithm, seed=seed))) for seed in (1, 1, 2))
    assert first == again
    assert first[3:] != other[3:]


def test_tpe_goes_where_it_is_good() -> None:
    """After 60 trials of a score that peaks at 0.5, TPE's last proposals lie nearer to the peak than random ones."""

    def distance(algorithm: str) -> float:
        space = {"background.remove": {"uniform": [0.0, 0.8]}}
        given = play(TuneSearcher(make(space, algorithm=algorithm, trials=60)))
        return sum(abs(config[VALUES]["background.remove"] - 0.5) for config in given[-20:]) / 20

    assert distance("optuna") < 0.5 * distance("random")


def test_a_grid_is_gone_through_once() -> None:
    space = {"background.remove": {"grid": [0.0, 0.4]}, "optimizer.lr": {"grid": [0.01, 0.1, 1.0]}}
    file = make(space, algorithm="grid")
    given = [config for config in play(TuneSearcher(file)) if config[FIXED] is None]
    assert total_trials(file) == 7
    assert len({tuple(config[VALUES].values()) for config in given}) == len(given) == 6


class Log:
    """A journal in memory."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def write(self, event: Event) -> None:
        self.events.append(event)


def continue_search(searcher: TuneSearcher, log: Log, count: int) -> list[dict[str, Any]]:
    """Values of the next trials, of which every third is stopped, some fail and the others are completed."""
    given = []
    for _ in range(count):
        config = searcher.suggest("trial")
        assert isinstance(config, dict)
        number = config["number"]
        epoch, failed = 200 if number % 3 else 20, number % 4 == 3
        metrics = {"knn_top1": config[VALUES]["optimizer.lr"], "bg_gap": config[VALUES]["background.remove"]}
        searcher.on_trial_complete("trial", None if failed else {"epoch": epoch, **metrics}, error=failed)
        status: Status = "failed" if failed else "completed" if epoch == 200 else "stopped"
        log.write(Ended(trial=TrialRecord(f"t{number:02d}", {}, None, "", "", status, epoch, metrics)))
        given.append(config[VALUES])
    return given


@pytest.mark.parametrize("metrics", [("knn_top1",), ("knn_top1", "bg_gap")])
@pytest.mark.parametrize("algorithm", SEARCHERS)
def test_a_resumed_search_continues_as_an_uninterrupted_one(algorithm: str, metrics: tuple[str, ...]) -> None:
    space = {"background.remove": {"choice": [0.0, 0.2, 0.4]}, "optimizer.lr": {"choice": [0.01, 0.02, 0.1, 0.2, 1.0]}}
    search = {"trials": 16, "metric": metrics, "mode": ["max", "min"][: len(metrics)], "scheduler": "none"}
    file = resolve({"space": space, "search": {"algorithm": algorithm, **search}, "evaluate": {"bg_gap": True}})
    log = Log()
    whole = continue_search(TuneSearcher(file, journal=log), log, 16)  # type: ignore[arg-type]
    assert continue_search(TuneSearcher(file, log.events[: 2 * 8]), Log(), 8) == whole[8:]


FALLING = {"from": 0.4, "to": 0}
LISTS: dict[str, Any] = {
    "views.scale": {"choice": [[0.2, 1.0], [0.08, 1.0], [0.5, 1.0]]},
    "background.random": {"choice": [0.0, FALLING, [0.1, 0.3]]},
    "optimizer.lr": {"loguniform": [0.01, 1.0]},
    "background.remove": {"uniform": [0.0, 0.5], "when": {"views.scale": [[0.2, 1.0], [0.08, 1.0]]}},
    "points": [{}, {"background.random": [0.1, 0.3]}],
}


def with_lists(algorithm: str) -> SweepConfig:
    """A space of values that the experiment holds as tuples and as a schedule whose course is filled in."""
    experiment = {"views": {"scale": [0.2, 1.0]}, "background": {"random": FALLING}}
    search = {"trials": 12, "scheduler": "none", "algorithm": algorithm}
    return resolve({"experiment": experiment, "space": LISTS, "search": search})


@pytest.mark.parametrize("algorithm", ["optuna", "gp"])
def test_a_resumed_search_of_lists_and_schedules_continues_as_an_uninterrupted_one(
    algorithm: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = Log()

    def go_on(proposals: TuneSearcher, count: int) -> list[dict[str, Any]]:
        given = []
        for _ in range(count):
            proposed = proposals.suggest("trial")
            assert isinstance(proposed, dict)
            name, values = f"t{proposed['number']:02d}", proposed[VALUES]
            metrics = {"knn_top1": values["optimizer.lr"] - values["views.scale"][0]}
            proposals.on_trial_complete("trial", {"epoch": 200, **metrics})
            log.write(Ended(trial=TrialRecord(name, values, None, "", "", "completed", 200, metrics)))
            given.append(values)
        return given

    file = with_lists(algorithm)
    whole = go_on(TuneSearcher(file, journal=log), 12)  # type: ignore[arg-type]
    read = [read_event(json.loads(json.dumps(event.public()))) for event in log.events[: 2 * 6]]
    resumed = go_on(TuneSearcher(file, [event for event in read if event]), 6)
    assert json.dumps(resumed) == json.dumps(whole[6:]) and not caplog.messages


def test_searchers_are_told_of_lists_and_schedules_as_their_options_write_them() -> None:
    proposals = TuneSearcher(with_lists("optuna"))
    given = [proposals.suggest(name) for name in "abc"]
    assert [one[VALUES]["views.scale"] for one in given if isinstance(one, dict)] == [[0.2, 1.0]] * 3
    told = [trial.params for trial in proposals._searcher._study.trials]  # type: ignore[attr-defined]
    assert [one["background.random"] for one in told] == [0.0, FALLING, [0.1, 0.3]]
    assert all(one["views.scale"] == [0.2, 1.0] and one["background.remove"] == 0.0 for one in told)


def test_a_failed_trial_does_not_stop_the_search() -> None:
    proposals = TuneSearcher(make(algorithm="optuna"))
    for trial in "abcd":
        proposals.suggest(trial)
    proposals.on_trial_complete("d", None, error=True)
    assert isinstance(proposals.suggest("e"), dict)


def with_methods(**search: Any) -> SweepConfig:
    space = {
        "method.name": {"choice": ["moco_v2", "swav"]},
        "method.queue_size": {"choice": [128, 256], "when": {"method.name": "moco_v2"}},
        "method.prototypes": {"choice": [16, 32], "when": {"method.name": "swav"}},
        "background.remove": {"choice": [0.0, 0.4]},
    }
    experiment = {"training": {"batch_size": 64}, "method": {"queue_size": 128}}
    return resolve({"experiment": experiment, "space": space, "search": search})


@pytest.mark.parametrize("algorithm", SEARCHERS)
def test_only_keys_that_apply_are_proposed(algorithm: str) -> None:
    file = with_methods(trials=24, algorithm=algorithm)
    given = [config[VALUES] for config in play(TuneSearcher(file))]
    for values in given:
        file.experiment.with_values(values)  # raises where a value is of the other method
        own = "method.queue_size" if values["method.name"] == "moco_v2" else "method.prototypes"
        assert set(values) == {"method.name", "background.remove", own}
    assert {values["method.name"] for values in given} == {"moco_v2", "swav"}
    if algorithm == "grid":
        assert len(given[1:]) == len({tuple(sorted(values.items(), key=str)) for values in given[1:]}) == 8


def test_by_two_metrics_the_sampler_goes_to_the_front_and_repeats_itself_after_the_driver_died() -> None:
    settings = {"metric": ["knn_top1", "bg_gap"], "mode": ["max", "min"], "scheduler": "none", "trials": 60}
    space = {"optimizer.lr": {"uniform": [0.01, 1.0]}, "views.gray": {"uniform": [0.0, 1.0]}}
    file = resolve({"space": space, "search": settings, "evaluate": {"bg_gap": True}})
    log = Log()

    def go_on(proposals: TuneSearcher, count: int) -> list[dict[str, Any]]:
        given = []
        for _ in range(count):
            config = proposals.suggest("trial")
            assert isinstance(config, dict)
            rate, gray = config[VALUES]["optimizer.lr"], config[VALUES]["views.gray"]
            metrics = {"knn_top1": rate - gray, "bg_gap": rate + gray}  # only views.gray = 0 is on the front
            proposals.on_trial_complete("trial", {"epoch": 200, **metrics})
            name = f"t{config['number']:02d}"
            log.write(Ended(trial=TrialRecord(name, {}, None, "", "", "completed", 200, metrics)))
            given.append(config[VALUES])
        return given

    whole = go_on(TuneSearcher(file, journal=log), 60)  # type: ignore[arg-type]
    assert sum(values["views.gray"] for values in whole[-20:]) < 0.6 * sum(
        values["views.gray"] for values in whole[:20]
    )
    resumed = TuneSearcher(file, log.events[: 2 * 30])
    assert go_on(resumed, 30) == whole[30:]


def two_goals(**search: Any) -> SweepConfig:
    space = {"optimizer.lr": {"uniform": [0.01, 1.0]}, "views.gray": {"uniform": [0.0, 1.0]}}
    search = {"metric": ["knn_top1", "bg_gap"], "baseline": False, **search}
    return resolve({"space": space, "search": search, "evaluate": {"bg_gap": True}})


def test_by_two_metrics_a_stopped_trial_counts_as_soon_as_its_end_can_be_expected() -> None:
    searcher = TPESearcher(two_goals(trials=8))
    curves = {
        "t00": {20: (0.1, 0.3)},
        "t01": {20: (0.3, 0.2), 200: (0.6, 0.1)},
        "t02": {20: (0.2, 0.4)},
        "t03": {40: (0.2, 0.4)},
    }
    told: list[dict[int, list[float]]] = []
    for name, curve in curves.items():
        searcher.propose(name)
        for epoch, (top1, gap) in curve.items():
            searcher.on_result(name, epoch, {"knn_top1": top1, "bg_gap": gap})
        last = dict(zip(("knn_top1", "bg_gap"), curve[max(curve)], strict=True))
        searcher.on_end(name, "completed" if 200 in curve else "stopped", last)
        ended = [each for each in searcher._study.trials if each.state.name == "COMPLETE"]
        told.append({each.number: each.values for each in ended})
    assert told[0] == {}
    assert told[1] == {0: pytest.approx([0.4, 0.2]), 1: [0.6, 0.1]}
    assert told[2] == told[1] | {2: pytest.approx([0.5, 0.3])}
    assert told[3] == told[2], "no other trial was measured at its epoch"


def test_by_two_metrics_tpe_learns_from_stopped_trials_and_repeats_itself_after_the_driver_died() -> None:
    """Four of five trials are stopped, so that TPE's eight trials at the start would last for 40."""
    file, log = two_goals(trials=32), Log()

    def go_on(proposals: TuneSearcher, count: int) -> list[dict[str, Any]]:
        given = []
        for _ in range(count):
            proposed = proposals.suggest("trial")
            assert isinstance(proposed, dict)
            number, values = proposed["number"], proposed[VALUES]
            name, whole = f"t{number:02d}", number % 5 == 1
            log.write(Started(trial=TrialRecord(name, values, None, "", "")))
            metrics: dict[str, float] = {}
            for epoch in (20, 200) if whole else (20,):
                metrics = {"knn_top1": epoch / 200 - values["views.gray"], "bg_gap": values["views.gray"]}
                proposals.on_trial_result("trial", {"epoch": epoch, **metrics})
                log.write(Result(id=name, epoch=epoch, metrics=metrics, seconds=1.0))
            proposals.on_trial_complete("trial", {"epoch": epoch, **metrics})
            status: Status = "completed" if whole else "stopped"
            log.write(Ended(trial=TrialRecord(name, values, None, "", "", status, epoch, metrics)))
            given.append(values)
        return given

    whole = go_on(TuneSearcher(file, journal=log), 32)  # type: ignore[arg-type]
    gray = [values["views.gray"] for values in whole]
    assert sum(gray[-16:]) < 0.6 * sum(gray[:16]), "only the least is on the front"
    until = 1 + [event.trial.id if isinstance(event, Ended) else "" for event in log.events].index("t15")
    assert go_on(TuneSearcher(file, log.events[:until]), 16) == whole[16:]
