"""The estimated cost of searches that can be counted by hand."""

from typing import Any

import pytest

from bgsweep.cli.main import main
from bgsweep.config import SweepConfig, resolve
from bgsweep.errors import UserError
from bgsweep.sweep.cost import Cost, plan, simulate

RANGE = "space.background.remove={uniform: [0, 0.8]}"
SPACE = {"optimizer.lr": {"loguniform": [0.01, 1.0]}}


def make(epochs: int = 9, evaluate: dict[str, Any] | None = None, **search: Any) -> SweepConfig:
    experiment = {"training": {"epochs": epochs}}
    return resolve({"experiment": experiment, "space": SPACE, "search": search, "evaluate": evaluate or {}})


def test_without_early_stopping_the_time_is_that_of_all_epochs() -> None:
    file = make(trials=5, scheduler="none", seeds=2, evaluate={"every": 4})
    found = simulate(file, at_once=2, cost=Cost(epoch=10, evaluation=1, start=3, cold=7), seed=0)
    trial = 2 * (9 * 10 + 3 * 1 + 3)  # two seeds; looked at after epochs 4, 8 and 9
    assert found.seconds == 3 * trial + 7 and found.busy == 5 * trial + 2 * 7
    assert (found.epochs, found.whole) == (5 * 9 * 2, 5)


def test_a_population_waits_at_each_generations_end() -> None:
    file = make(trials=5, scheduler="pbt", perturb_epochs=4)
    found = simulate(file, at_once=2, cost=Cost(epoch=1, start=0.5), seed=0)
    assert found.seconds == 3 * (4.5 + 4.5 + 1.5)  # five trials by twos are three turns
    assert found.busy == 5 * (4.5 + 4.5 + 1.5) and found.whole == 5


def test_halving_stops_most_trials_early_but_never_the_baseline() -> None:
    cost = Cost(epoch=1)
    for seed in range(5):
        halved = simulate(make(trials=27, grace_epochs=1, reduction=3), 3, cost, seed)
        assert 9 <= halved.epochs < 0.6 * 27 * 9 and 1 <= halved.whole < 14
        assert halved.busy == halved.epochs  # nothing is trained but what counts
    alone = simulate(make(trials=1, grace_epochs=1, reduction=3), 3, cost, 0)
    assert (alone.seconds, alone.whole) == (9, 1)
    sooner = simulate(make(trials=27, grace_epochs=1, reduction=3), 27, cost, 0)
    assert sooner.seconds < halved.seconds


def test_settings_stand_side_by_side_with_their_price() -> None:
    found = plan(make(trials=12, gpus=0.5), gpus=2, hourly_price=3.0, epoch_seconds=3600.0)
    assert found["at_once"] == 4 and plan(make(trials=3, gpus=0.5), 2, None, 3600.0)["at_once"] == 3
    own, *others = found["settings"]
    assert own["setting"] == "asha, reduction 3, grace 1 (the file's)" and len(others) == 5
    (none,) = [each for each in others if each["setting"] == "none"]
    assert (none["hours"], none["gpu_hours"], none["price"], none["utilisation"]) == (27, 54, 162, 1)
    assert own["hours_low"] <= own["hours"] <= own["hours_high"] < none["hours"]


@pytest.mark.parametrize(
    ("overrides", "options", "told"),
    [
        (
            ["workers.count=2", "workers.gpus=4", "workers.device=cuda"],
            ["--epoch-seconds", "9"],
            "--gpus: 4 are too few, for one trial needs 8",
        ),
        (["workers.count=2"], [], "give --epoch-seconds"),
        ([], ["--hourly-price", "-1"], "'-1' is not a number above 0"),
    ],
)
def test_what_cannot_be_planned_is_one_line(
    overrides: list[str], options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "search_spaces/quickstart.yaml", *overrides, "--gpus", "4", *options]) == 2
    assert told in capsys.readouterr().err


def test_one_worker_is_measured_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "tests/tiny.yaml", RANGE, "search.trials=3", "search.scheduler=none", "--gpus", "1"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("3 trials, 1 at once, ") and "none (the file's)" in shown
    with pytest.raises(UserError):
        plan(make(gpus=4), 2, None, 1.0)
