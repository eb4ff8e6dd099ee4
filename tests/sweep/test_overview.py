"""The page of a sweep's parent run in MLflow."""

from pathlib import Path

import pytest

from bgsweep.config import SweepConfig, load
from bgsweep.sweep.events import Result
from bgsweep.sweep.overview import Overview, describe_sweep
from bgsweep.sweep.trial_record import TrialRecord
from bgsweep.tracking import Tracker, tracking_uri
from bgsweep.tracking.registry import MADE_BY, add_version, describe, open_registered_model

TINY = Path(__file__).parents[1] / "tiny.yaml"


@pytest.fixture
def config() -> SweepConfig:
    return load(TINY, ["space.background.remove={uniform: [0, 0.8]}"])


@pytest.fixture
def tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Tracker(tracking_uri(tmp_path))


def result(trial: str, epoch: int, score: float) -> Result:
    return Result(id=trial, epoch=epoch, metrics={"knn_top1": score}, seconds=1.0)


def test_the_best_value_has_the_epochs_of_all_trials_as_steps_and_goes_on_after_a_resume(
    config: SweepConfig, tracker: Tracker
) -> None:
    past = [result("t00", 1, 0.2), result("t01", 1, 0.1), result("t00", 2, 0.3), result("t01", 2, 0.25)]
    with tracker:
        parent = tracker.sweep_run("one", config)
        overview = Overview(config, tracker, parent, "one")
        for event in past[:2]:
            overview.result(event)
        tracker.flush()
        resumed = Overview(config, tracker, parent, "one")
        until = resumed.last_step()
        for event in past:  # the first driver died before it had sent the last ones
            resumed.result(event, until)
        resumed.result(result("t01", 4, 0.5))
    curve = tracker.client.get_metric_history(parent, "best/validation/knn/top1")
    assert [(point.step, point.value) for point in curve] == [(1, 0.2), (3, 0.3), (6, 0.5)]


def test_a_description_of_many_trials_has_the_best_ones_and_fits(config: SweepConfig) -> None:
    records = [
        TrialRecord(f"t{number:03d}", {"background.remove": 0.1}, None, "", "", "completed", 3, {"knn_top1": score})
        for number, score in enumerate([0.1, 0.9, *[0.5] * 998])
    ]
    records[0].status = "stopped"
    text = describe_sweep("one", config, records, limit=5000)
    lines = text.splitlines()
    assert text.startswith(f"{MADE_BY}, sweep `one`: 1 stopped, 999 completed.") and len(text) <= 5000
    assert lines[4] == "| trial | status | epochs | validation/knn/top1 | background.remove |  |"
    assert lines[6].startswith("| t001 | completed | 3 | 0.9 | 0.1 |")
    assert "more trials are in `report.html`" in lines[-1]
    assert int(lines[-1].split()[0]) + len(lines) - 8 == 1000
    assert "| t000 |" in describe_sweep("one", config, records[:3])


def test_a_description_has_the_winner_and_the_front() -> None:
    several = ["search.metric=[validation/knn/top1, loss]", "search.mode=[max, min]", "search.scheduler=none"]
    config = load(TINY, ["space.background.fill={choice: [mean, black]}", *several])
    scores = {"t00": (0.5, 2.0), "t01": (0.4, 1.0), "t02": (0.3, 3.0)}
    records = [
        TrialRecord(name, {"background.fill": "a|b"}, None, "", "", "completed", 3, {"knn_top1": knn, "loss": loss})
        for name, (knn, loss) in scores.items()
    ]
    records[2].fixed = "baseline"
    measured = {"knn_top1": 0.5, "linear_top1": 0.25, "backgrounds": {"bg_gap": 0.125}}
    without = {"knn_top1": 0.4, "linear_top1": 0.2, "backgrounds": None}
    model = {"name": "tiny", "version": 2, "alias": "challenger", "reason": "not better"}
    result = {"best": {"trial": "t01", "metrics": measured}, "baseline": {"metrics": without}, "model": model}
    lines = describe_sweep("one", config, records, result).splitlines()
    assert "**Winner: t01**, registered as `tiny` version 2, alias challenger: not better." in lines
    assert "| kNN bg_gap | 12.5 |  |" in lines and "| linear probe | 25.0 | 20.0 |" in lines
    assert lines[-3:] == [
        "| t00 | completed | 3 | 0.5 | 2 | a\\|b | Pareto front |",
        "| t01 | completed | 3 | 0.4 | 1 | a\\|b | **winner**, Pareto front |",
        "| t02 | completed | 3 | 0.3 | 3 | a\\|b | baseline |",
    ]


def test_a_model_s_description_that_a_person_has_written_stays(tracker: Tracker, config: SweepConfig) -> None:
    with tracker:
        run = tracker.pretrain_run("one", config)
        model = tracker.client.create_logged_model(tracker.experiment_id, "encoder", source_run_id=run).model_id
        open_registered_model(tracker, "tiny")
        for version, text in enumerate((f"{MADE_BY}: first", f"{MADE_BY}: second" + "x" * 6000), 1):
            add_version(tracker, run, model, "tiny", {})
            describe(tracker, "tiny", version, text)
            assert tracker.client.get_registered_model("tiny").description == text[:5000]
        tracker.client.update_registered_model("tiny", "ours")
        describe(tracker, "tiny", 1, f"{MADE_BY}: third")
    assert tracker.client.get_registered_model("tiny").description == "ours"
    assert tracker.client.get_model_version("tiny", "1").description == f"{MADE_BY}: third"
