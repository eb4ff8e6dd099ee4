"""The choice of a sweep's winner over seeds, and of the trials that are trained again."""

import random
from statistics import mean, stdev
from typing import Any

import pytest

from bgsweep.config import SweepConfig, resolve
from bgsweep.errors import UserError
from bgsweep.sweep.budget import BudgetGuard
from bgsweep.sweep.changes import changed
from bgsweep.sweep.confirmation import Confirmations, proposals_of
from bgsweep.sweep.cost import Cost, simulate
from bgsweep.sweep.events import Ended, Event, Result, Started, of_search
from bgsweep.sweep.searcher import CHECKPOINT, EPOCHS, VALUES, named
from bgsweep.sweep.selection import candidates, cautious, comparison, confirmed, front, held_out, winner
from bgsweep.sweep.trial_names import by_number
from bgsweep.sweep.trial_record import Status, TrialRecord

SPACE = {"background.remove": {"uniform": [0.0, 0.8]}}


def config(**search: Any) -> SweepConfig:
    return resolve({"experiment": {"seed": 5, "training": {"epochs": 4}}, "space": SPACE, "search": search})


def trial(name: str, value: float, error: float | None = None, status: Status = "completed") -> TrialRecord:
    metrics = {"knn_top1": value} | ({} if error is None else {"knn_top1_se": error})
    values = {"background.remove": value}
    return TrialRecord(name, values, "baseline" if name == "t00" else None, "", "", status, 4, metrics)


def by_name(*records: TrialRecord) -> dict[str, TrialRecord]:
    return {record.id: record for record in records}


def test_over_seeds_the_winner_is_sure_rather_than_lucky() -> None:
    records = by_name(trial("t00", 0.4, 0.01), trial("t01", 0.5, 0.004), trial("t02", 0.52, 0.08))
    best = winner(records, config(seeds=3).search)
    assert best is records["t01"], "the record itself, not one with bounds in place of means"
    assert winner(records, config().search) is records["t02"], "of one seed, an error is of the images alone"
    # By hand: t(0.95; 4) = 2.132, times the root of the mean of the trial's variance and all trials' mean one.
    usual = (0.01**2 + 0.004**2 + 0.08**2) / 3
    bound = cautious(list(records.values()), config(seeds=3).search)[1].metrics["knn_top1"]
    assert bound == pytest.approx(0.5 - 2.1318 * ((0.004**2 + usual) / 2) ** 0.5, abs=1e-5)
    low = config(seeds=3, metric="loss", mode="min").search
    loss = TrialRecord("t00", {}, None, "", "", "completed", metrics={"loss": 1.0, "loss_se": 0.1})
    assert cautious([loss], low)[0].metrics["loss"] == pytest.approx(1.213, abs=1e-3), "worse is higher"


def test_of_trials_that_come_first_too_late_none_without_a_checkpoint_wins() -> None:
    search = config(seeds=2, keep_checkpoints=1).search
    records = by_name(trial("t01", 0.6, 0.001), trial("t02", 0.63, 0.03), trial("t03", 0.5, 0.08))
    for record in records.values():
        record.checkpoint = f"runs/{record.id}"
    assert winner(records, search) is records["t02"]
    records["t01"].checkpoint = None  # collected, as one of the others
    records |= by_name(*(trial(f"t{number:02d}", 0.45, 0.001) for number in range(4, 17)))
    assert winner(records, search) is records["t02"], "the mean of all variances is lower now, so that t01 comes first"
    records["t01"].checkpoint = "runs/t01"
    assert winner(records, search) is records["t01"]


def test_of_the_search_the_front_holds_no_trial_that_confirms_another() -> None:
    records = [trial("t01", 0.5), trial("c01", 0.9, 0.01), trial("t02", 0.4)]
    assert [each.id for each in front(records, config().search)] == ["t01"]
    assert sorted(["c01", "t100", "t99"], key=by_number) == ["t99", "t100", "c01"]


def test_the_champion_is_chosen_by_the_new_seeds_alone() -> None:
    file = config(confirm={"top": 2, "seeds": 3})
    records = by_name(trial("t00", 0.2), trial("t01", 0.9), trial("t02", 0.8), trial("t03", 0.7))
    assert [each.id for each in candidates(records.values(), file.search)] == ["t01", "t02"]
    proposed = proposals_of(file, records)
    assert [named(each) for each in proposed] == ["c01", "c02", "c00"], "the best ones, and the baseline on their seeds"
    assert [each[VALUES] for each in proposed] == [{"background.remove": v, "seed": 6} for v in (0.9, 0.8, 0.2)]
    records |= by_name(trial("c01", 0.5, 0.1), trial("c02", 0.6, 0.1), trial("c03", 0.99, 0.1))
    best = winner(records, file.search)
    assert best is records["c02"], "c03 is of a trial that is not among the best"
    assert comparison(best, records, file.search) == {"validation/knn/top1": {"value": 0.6, "se": 0.1, "searched": 0.8}}
    records["c02"] = trial("c02", 0.6, 0.1, "failed")
    assert winner(records, file.search) is records["c01"]
    del records["c01"]
    assert winner(records, file.search) is records["t01"], "none was confirmed"


def test_the_value_of_the_champion_is_free_of_the_bias_of_choosing_it() -> None:
    """400 sweeps of equal trials, whose values are noise around 0: the best of the search is 1.6 on average."""
    file, draw = config(confirm={"top": 3, "seeds": 3}), random.Random(0)
    found: dict[str, list[float]] = {"searched": [], "confirmed": [], "chosen": [], "unbiased": []}
    for _ in range(400):
        records = by_name(*(trial(f"t{number:02d}", draw.gauss(0, 1)) for number in range(12)))
        for each in candidates(records.values(), file.search):
            values = [draw.gauss(0, 1) for _ in range(3)]
            own = records[f"c{each.id[1:]}"] = trial(f"c{each.id[1:]}", mean(values), stdev(values) / 3**0.5)
            own.metrics |= {f"knn_top1/seed_{seed}": value for seed, value in enumerate(values, 6)}
        again, best = confirmed(records, file.search), winner(records, file.search)
        assert best and len(again) == 3
        values = list(comparison(best, records, file.search).values())
        found["searched"].append(values[0]["searched"])
        found["chosen"].append(values[0]["value"])
        found["confirmed"].append(mean(each.metrics["knn_top1"] for each in again))
        found["unbiased"].append(held_out(again, file.search, (6, 7, 8))["validation/knn/top1"])
    far = {name: mean(each) / (stdev(each) / 20) for name, each in found.items()}  # in standard errors
    assert abs(far["confirmed"]) < 3 and abs(far["unbiased"]) < 3
    assert far["searched"] > 20 and far["chosen"] > 10


def test_a_resumed_confirmation_goes_on_from_its_checkpoint() -> None:
    file = config(confirm={"top": 2, "seeds": 2}, baseline=False)
    records = by_name(trial("t01", 0.9), trial("t02", 0.8), trial("c01", 0.5, 0.1), trial("c02", 0.4, 0.1, "running"))
    records["c02"].checkpoint, records["c02"].epochs = "there", 2
    (left,) = proposals_of(file, records)
    assert (named(left), left[CHECKPOINT], left[EPOCHS]) == ("c02", "there", 2)
    events: list[Event] = [Started(trial=records["t01"]), Started(trial=records["c01"])]
    events += [Result(id="c01", epoch=1, metrics={}, seconds=1.0), Ended(trial=records["c01"])]
    assert of_search(events) == events[:1], "neither searcher nor scheduler learn of it"


def test_a_budget_keeps_room_for_the_trials_that_confirm() -> None:
    def guard(**search: Any) -> BudgetGuard:
        done = trial("t00", 0.5)
        done.seconds = 3600.0
        return BudgetGuard(config(budget={"hours": 6}, **search), 0.0, 3600.0, {"t00": done}, at_once=2)

    assert not guard().refusal([])
    assert guard(confirm={"top": 2, "seeds": 3}).refusal([]) == "search.budget.hours: 6", "two rounds of three hours"
    assert not guard(confirm={"top": 2, "seeds": 3}).refusal([], confirming=True)
    searcher = Confirmations([{"number": 1, "confirms": True, EPOCHS: 0}], lambda begun: "search.budget.hours: 6")
    assert searcher.suggest("a") == "FINISHED" and searcher.over


def test_a_plan_counts_the_trials_that_confirm() -> None:
    plain, again = (simulate(config(trials=4, **more), 2, Cost(1.0), 0) for more in ({}, {"confirm": {"top": 1}}))
    # The best one and the baseline, side by side, each with three seeds of four epochs.
    assert (again.epochs - plain.epochs, again.seconds - plain.seconds) == (24, pytest.approx(12))


def test_a_population_and_a_searched_seed_cannot_be_confirmed() -> None:
    with pytest.raises(UserError, match="confirm: the values of a population's trial change"):
        config(confirm={}, scheduler="pbt")
    with pytest.raises(UserError, match=r"space\.seed: search\.confirm trains trials with other seeds"):
        resolve({"space": {"seed": {"choice": [1, 2]}}, "search": {"confirm": {}}})


def test_a_sweep_that_has_ended_can_be_confirmed_later_but_not_with_other_seeds_once_begun() -> None:
    file: dict[str, Any] = {"space": SPACE, "search": {"trials": 2}}
    after = changed("one", file, ["search.confirm={top: 2}"], by_name(trial("t00", 0.1), trial("t01", 0.2)))
    assert after.search.confirm and after.search.confirm.top == 2
    file["search"]["confirm"] = {"seeds": 2}
    with pytest.raises(UserError, match=r"search\.confirm\.seeds: cannot change"):
        changed("one", file, ["search.confirm.seeds=3"], by_name(trial("t00", 0.1), trial("c00", 0.2)))
