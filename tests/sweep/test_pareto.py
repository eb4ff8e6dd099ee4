"""The Pareto front of a sweep by several metrics, and the one trial of it that is called the best."""

from bgsweep.sweep.pareto import best_of, pareto
from bgsweep.sweep.trial_record import Status, TrialRecord

SIGNS = {"knn_top1": 1, "bg_gap": -1}


def trial(name: str, accuracy: float, gap: float, status: Status = "completed") -> TrialRecord:
    return TrialRecord(name, {}, None, "", "", status, metrics={"knn_top1": accuracy, "bg_gap": gap})


def names(records: list[TrialRecord]) -> list[str]:
    return [record.id for record in records]


def test_the_front_holds_what_nothing_beats() -> None:
    records = [
        trial("accurate", 0.9, 0.3),
        trial("beaten", 0.85, 0.3),
        trial("middle", 0.8, 0.1),
        trial("robust", 0.5, 0.05),
        trial("twin", 0.8, 0.1),
        trial("unfinished", 1.0, 0.0, "stopped"),
        TrialRecord("unmeasured", {}, None, "", "", "completed", metrics={"knn_top1": 1.0}),
    ]
    front = pareto(records, SIGNS)
    assert names(front) == ["accurate", "middle", "robust", "twin"]
    # distances on the front's ranges 0.4 and 0.25: accurate 1, middle hypot(0.25, 0.2), robust 1
    assert best_of(front, SIGNS).id == "middle"


def test_of_two_extremes_the_first_metric_decides() -> None:
    front = [trial("robust", 0.5, 0.0), trial("accurate", 0.6, 0.2)]
    assert best_of(front, SIGNS).id == "accurate"
    assert best_of(front, {"bg_gap": -1, "knn_top1": 1}).id == "robust"


def test_by_one_metric_the_front_is_the_best_trial() -> None:
    records = [trial("a", 0.5, 0.0), trial("b", 0.7, 0.2), trial("c", 0.7, 0.1), trial("d", 0.6, 0.2)]
    front = pareto(records, {"knn_top1": 1})
    assert names(front) == ["b", "c"] and best_of(front, {"knn_top1": 1}).id == "b"
    assert best_of(pareto(records, {"knn_top1": -1}), {"knn_top1": -1}).id == "a"
