"""A sweep's budget: which trial may still begin, and what has been spent."""

import json
from pathlib import Path
from typing import Any

import pytest

from bgsweep.config import SweepConfig, load
from bgsweep.errors import UserError
from bgsweep.sweep.budget import BudgetGuard, check_budget, seconds_of
from bgsweep.sweep.events import Event, Owned, Proposed
from bgsweep.sweep.searcher import TuneSearcher
from bgsweep.sweep.trial_record import TrialRecord
from tests.command import bgsweep

TINY = Path(__file__).parents[1] / "tiny.yaml"
RANGE = "space.background.remove={uniform: [0.0, 0.8]}"


def budgeted(*settings: str) -> SweepConfig:
    return load(TINY, [RANGE, "training.epochs=10", *settings])


def trial(number: int, epochs: int, seconds: float, status: Any = "running") -> TrialRecord:
    return TrialRecord(f"t{number:02d}", {}, None, "", "", status, epochs, seconds=seconds)


ENDED = trial(0, 10, 3600, "completed")  # an hour for ten epochs: a trial is expected to take as long
HALF = trial(1, 5, 1800)


@pytest.mark.parametrize(
    ("settings", "gpus", "ran", "records", "refused"),
    [
        (["search.budget.hours=3"], 0, 1.9, [ENDED], ""),
        (["search.budget.hours=3"], 0, 2.1, [ENDED], "search.budget.hours: 3"),
        (["search.budget.hours=3"], 0, 2.1, [], ""),  # nothing is measured
        (["search.budget.hours=3"], 0, 3.1, [], "search.budget.hours: 3"),
        (["search.budget.hours=3"], 0, 2.1, [trial(0, 10, 1800, "stopped"), trial(1, 0, 0.0)], ""),
        (["search.budget.gpu_hours=6.1"], 2, 0, [ENDED, HALF], ""),  # 2 spent; 2 for each of the running and the next
        (["search.budget.gpu_hours=5.9"], 2, 0, [ENDED, HALF], "search.budget.gpu_hours: 5.9"),
        (["search.budget.gpu_hours=5.9"], 0.5, 0, [ENDED, HALF], ""),
        (["search.budget.cost=31", "search.budget.price_per_gpu_hour=10"], 1, 0, [ENDED, HALF], ""),
        (["search.budget.cost=29", "search.budget.price_per_gpu_hour=10"], 1, 0, [ENDED, HALF], "search.budget.cost"),
        (["search.budget.hours=9", "search.budget.gpu_hours=2"], 1, 0, [ENDED, HALF], "search.budget.gpu_hours: 2"),
        ([], 8, 900, [ENDED, HALF], ""),
    ],
)
def test_a_trial_begins_only_if_it_is_expected_to_end_within_the_budget(
    settings: list[str], gpus: float, ran: float, records: list[TrialRecord], refused: str
) -> None:
    known = {record.id: record for record in records}
    guard = BudgetGuard(budgeted(*settings), gpus, 3600 * ran, known)
    begun = [name for name, record in known.items() if record.status == "running"]
    found = guard.refusal(begun)
    assert found.startswith(refused) and bool(found) == bool(refused)


def test_trials_that_have_not_reported_count_in_full() -> None:
    guard = BudgetGuard(budgeted("search.budget.gpu_hours=3.5"), 1, 0, {"t00": ENDED})
    assert not guard.refusal(["t01"])
    assert guard.refusal(["t01", "t02"]) == "search.budget.gpu_hours: 3.5"


def test_what_is_spent_is_told() -> None:
    settings = ["search.budget.hours=24", "search.budget.cost=90", "search.budget.price_per_gpu_hour=3"]
    guard = BudgetGuard(budgeted(*settings), 4, 5400, {"t00": ENDED, "t01": HALF})
    assert guard.told() == "budget: 1.5 of 24 hours, 18 of 90 of costs"
    assert BudgetGuard(budgeted(), 4, 5400, {}).told() == ""


def test_the_time_between_two_drivers_is_not_spent() -> None:
    past: list[Event] = [
        Owned(token=1, time=100.0),
        Proposed(id="t00", time=130.0),
        Owned(token=2, time=9000.0),
        Proposed(id="t01", time=9015.0),
    ]
    assert (seconds_of(past), seconds_of([])) == (45.0, 0.0)


def test_the_searcher_waits_for_what_runs_and_then_ends() -> None:
    reasons = {"now": ""}
    searcher = TuneSearcher(budgeted("search.trials=5"), limit=lambda begun: reasons["now"])
    assert isinstance(searcher.suggest("a"), dict) and isinstance(searcher.suggest("b"), dict)
    reasons["now"] = "search.budget.hours: 1"
    assert searcher.suggest("c") is None and searcher.over == "search.budget.hours: 1"
    searcher.on_trial_complete("a", {"epoch": 2, "knn_top1": 0.5})
    reasons["now"] = ""  # it was stopped early
    assert isinstance(searcher.suggest("c"), dict) and not searcher.over
    reasons["now"] = "search.budget.hours: 1"
    searcher.on_trial_complete("b", error=True)
    assert searcher.suggest("d") is None
    searcher.on_trial_complete("c", {"epoch": 10, "knn_top1": 0.5})
    assert searcher.suggest("d") == "FINISHED"


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        (["search.budget.cost=5"], "cost: limits nothing without price_per_gpu_hour"),
        (["search.budget.price_per_gpu_hour=5"], "price_per_gpu_hour: limits nothing without cost"),
        (["search.budget.hours=0"], "search.budget.hours"),
        (["search.budget.hour=1"], "did you mean `hours`"),
        (["search.budget.hours=1", "search.scheduler=pbt", "search.perturb_epochs=1"], "pbt begins all trials at once"),
    ],
)
def test_a_budget_without_effect_is_refused(settings: list[str], refused: str) -> None:
    with pytest.raises(UserError, match=refused):
        budgeted(*settings)


def test_gpu_hours_of_trials_without_a_gpu_are_refused() -> None:
    budget = budgeted("search.budget.gpu_hours=1").search.budget
    check_budget(budget, 0.5)
    with pytest.raises(UserError, match=r"search\.budget\.gpu_hours: limits nothing, since the trials have no GPU"):
        check_budget(budget, 0)


@pytest.mark.faults
def test_a_sweep_ends_within_its_hours_and_goes_on_with_more(tmp_path: Path) -> None:
    """Forty seconds are too few for 300 trials; what runs is still evaluated, and more hours allow more trials."""

    def command(*arguments: str) -> tuple[dict[str, Any], str]:
        done = bgsweep(*arguments, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if "--json" in arguments else {}, done.stderr + done.stdout

    settings = ["search.trials=300", "search.scheduler=none", "search.concurrent=1", "register.name=tiny"]
    found, log = command("sweep", str(TINY), RANGE, *settings, "search.budget.hours=0.012", "--json")
    assert {each["status"] for each in found["trials"]} == {"completed"} and 1 <= len(found["trials"]) < 300
    assert "no further trial is expected to end within search.budget.hours: 0.012" in log and found["model"]["version"]
    _, log = command("status", found["sweep"])
    assert " of 0.012 hours" in log
    more, log = command("sweep", "--resume", found["sweep"], "search.budget.hours=0.1", "search.trials=8", "--json")
    assert len(more["trials"]) == max(8, len(found["trials"]))
    status, _ = command("status", found["sweep"], "--json")
    (sweep,) = status["sweeps"]
    assert sweep["budget"]["limits"] == {"hours": 0.1} and 0.005 < sweep["budget"]["spent"]["hours"] < 0.1
    command("report", found["sweep"], "--out", "page.html")
    assert " of 0.1 hours" in (tmp_path / "page.html").read_text(encoding="utf-8")
