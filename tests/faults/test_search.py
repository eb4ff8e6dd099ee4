"""Sweeps whose search keeps more in mind than a list of trials, undisturbed and with a driver that is killed."""

from pathlib import Path
from typing import Any

import pytest

from tests.faults.sweeps import SPACE, TINY, begin, ended, events, outcome, runs, wait_for

METHODS = [
    "space.method.name={choice: [moco_v2, supervised]}",
    "space.method.queue_size={choice: [320, 640], when: {method.name: moco_v2}}",
    "space.method.label_smoothing={uniform: [0.0, 0.2], when: {method.name: supervised}}",
]
SEVERAL = ["search.metric=[knn_top1, bg_gap]", "search.mode=[max, min]", "evaluate.bg_gap=true", "search.seeds=2"]
SEARCHES = {
    "seeds, methods and two metrics": (
        [*METHODS, *SEVERAL, "search.scheduler=none", "search.trials=5", "training.epochs=3"],
        lambda folder: len(events(folder, "ended")) >= 2,  # two may end in one moment
    ),
    "median": (
        [*SPACE, "search.scheduler=median", "search.trials=7", "search.concurrent=1", "training.epochs=4"],
        lambda folder: len(events(folder, "ended")) >= 4,
    ),
    "pbt": (
        [*SPACE, "search.scheduler=pbt", "search.perturb_epochs=2", "search.trials=4", "training.epochs=6"],
        lambda folder: len(events(folder, "generation")) == 1 and events(folder, "result")[-1]["epoch"] == 3,
    ),
}


@pytest.mark.parametrize("search", SEARCHES)
def test_resumed_after_the_driver_was_killed_it_ends_as_one_never_disturbed(search: str, tmp_path: Path) -> None:
    settings, half_way = SEARCHES[search]
    found: list[dict[str, Any]] = []
    for name in ("quiet", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        process = begin(folder, str(TINY), *settings, "evaluate.variant=mixed_rand", "register.name=tiny")
        if name == "killed":
            wait_for(lambda folder=folder: half_way(folder), process, folder)
            process.kill()
            process.wait()
            (sweep,) = (folder / "bgsweep_runs/sweeps").iterdir()
            process = begin(folder, "--resume", sweep.name)
        found.append(ended(process, folder))
    quiet, killed = found
    assert outcome(killed) == outcome(quiet)
    assert killed["best"]["trial"] == quiet["best"]["trial"]
    assert killed["best"]["metrics"] == quiet["best"]["metrics"]
    if search == "pbt":
        check_lineage(killed, [each["lineage"] for each in quiet["trials"]])
    elif search == "median":
        assert {trial["status"] for trial in killed["trials"]} == {"completed", "stopped"}
    else:
        check_seeds_and_front(killed)


def check_lineage(found: dict[str, Any], expected: list[Any]) -> None:
    """Trials have gone on from others, whole and with other values, and MLflow tells from which."""
    assert [trial["lineage"] for trial in found["trials"]] == expected
    assert {(trial["status"], trial["epochs"]) for trial in found["trials"]} == {("completed", 6)}
    taken = [trial for trial in found["trials"] if trial["lineage"]]
    assert taken and not found["trials"][0]["lineage"], "nothing was taken over, or the baseline took over"
    told = runs(found["tracking_uri"])
    for trial in taken:
        last = trial["lineage"][-1]
        assert last["params"] == trial["params"] and last["donor"] != trial["id"]
        assert told[trial["id"]].data.tags["bgsweep.lineage"].endswith(f"{last['donor']} at epoch {last['epoch']}")
        assert told[trial["id"]].data.tags["bgsweep.digest"] == trial["digest"]


def check_seeds_and_front(found: dict[str, Any]) -> None:
    front = {each["trial"]: each["values"] for each in found["pareto"]}
    assert found["best"]["trial"] in front
    for trial in found["trials"]:
        metrics = trial["metrics"]
        seeds = [metrics["knn_top1/seed_0"], metrics["knn_top1/seed_1"]]
        assert metrics["knn_top1"] == pytest.approx(sum(seeds) / 2)
        assert metrics["knn_top1_se"] == pytest.approx(abs(seeds[0] - seeds[1]) / 2)
        assert metrics["bg_gap"] == pytest.approx(metrics["mixed_same"] - metrics["mixed_rand"])
        beaten = any(
            values["knn_top1"] >= metrics["knn_top1"]
            and values["bg_gap"] <= metrics["bg_gap"]
            and (values["knn_top1"], values["bg_gap"]) != (metrics["knn_top1"], metrics["bg_gap"])
            for values in front.values()
        )
        assert (trial["id"] in front) != beaten
        own = {"moco_v2": "method.queue_size", "supervised": "method.label_smoothing"}[trial["params"]["method.name"]]
        assert own in trial["params"] or trial["fixed"]
    assert set(found["best"]["seeds"]) == {"knn_top1", "linear_top1", "bg_gap"}
    assert found["best"]["seeds"]["knn_top1"]["values"][0] == found["best"]["metrics"]["knn_top1"]
