"""Sweeps on a folder without classes: what decides them, and what is told of it."""

from pathlib import Path

import pytest

from bgsweep.cli.formatting import trial_table
from bgsweep.cli.train import _comparison
from bgsweep.config import SweepConfig
from bgsweep.config.load import load
from bgsweep.errors import UserError
from bgsweep.evaluation import Report
from bgsweep.report.run_artifacts import registry_tags
from bgsweep.sweep import overview
from bgsweep.sweep.notify import verdict
from bgsweep.sweep.promotion import compare_unlabelled
from bgsweep.training.checkpoint import untrained
from bgsweep.training.final_evaluation import check_final, evaluate_final
from bgsweep.training.run import Run
from tests.inputs import write_images

SMALL = ["evaluate.metrics=[{name: reliance, foregrounds: 3, backgrounds: 3, resamplings: 10}, rankme]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and masks without class folders."""
    found = tmp_path_factory.mktemp("unlabelled")
    write_images(found)
    for kind in ("photos", "masks"):
        for path in sorted((found / kind).glob("*/*/*")):
            path.rename(path.parents[1] / f"{path.parent.name}-{path.name}")
        for path in (found / kind).glob("*/*/"):
            path.rmdir()
    return found


def config(folder: Path, *words: str) -> SweepConfig:
    paths = [f"data.images={folder / 'photos'}", f"data.masks={folder / 'masks'}"]
    return load(folder / "mine.yaml", [*paths, *words])


def test_trials_are_compared_and_judged_by_metrics_without_labels(folder: Path) -> None:
    file = config(folder, *SMALL, "search.metric=bg_share")
    run = Run(file)
    check_final(file, run.splits)
    metrics = run.step_epoch()
    assert set(file.search.metrics) <= metrics.keys() and "knn_top1" not in metrics
    report = evaluate_final(file, untrained(file.experiment), run.splits)
    assert report.knn_top1 is None and report.decisive is None and report.backgrounds is None
    shares = [report.unlabelled[f"test/reliance/{part}_share"] for part in ("fg", "bg", "interaction")]
    assert sum(shares) == pytest.approx(1) and report.unlabelled["test/reliance/bg_share_se"] > 0
    tags = registry_tags(file, report, {})
    assert tags["test_reliance_bg_share"] == f"{shares[1]:.4f}" and "test_knn_top1" not in tags


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            [],
            "search.metric validation/knn/top1 needs images in class folders; .* with masks, .swap_lidar, bg_share",
        ),
        (["search.metric=mixed_rand"], "search.metric validation/knn/mixed_rand needs images in class folders"),
        (["search.metric=loss"], r"nothing can be measured on the test split by search.metric alone; name evaluate"),
        (["search.metric=rankme", "evaluate.bg_gap=true"], "evaluate.bg_gap: .* has one class"),
    ],
)
def test_what_cannot_decide_a_sweep_is_refused_before(folder: Path, words: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_final(config(folder, *words))


def test_a_champion_is_replaced_by_what_is_better_by_twice_the_error() -> None:
    def report(value: float) -> Report:
        return Report(None, None, None, None, {}, None, {"test/rankme/rank": value, "test/rankme/rank_se": 3.0})

    name = "validation/rankme/rank"
    better, reason = compare_unlabelled(report(110), report(100), name, 1)
    assert better and reason.startswith("better by more than the noise: 110 against 100, standard error of the")
    assert not compare_unlabelled(report(108), report(100), name, 1)[0]
    assert not compare_unlabelled(report(110), report(100), name, -1)[0]
    assert "not measured on the test split" in compare_unlabelled(report(1), report(0), "loss", -1)[1]


def test_tables_and_messages_show_what_was_measured() -> None:
    shown = {"knn_top1": None, "linear_top1": None, "backgrounds": None, "unlabelled": {"test/rankme/rank": 12.345}}
    trial = {"id": "t00", "status": "completed", "epochs": 3, "params": {}, "fixed": "", "failures": 0, "error": ""}
    measured = {"validation/rankme/rank": 11.5, "validation/rankme/rank_se": 0.5, "loss": 1.0}
    result = {
        "sweep": "flat",
        "best": {"trial": "t00", "metrics": shown, "protocol": {}},
        "untrained": {"metrics": shown},
        "model": {"name": "flat", "version": 1, "alias": "champion", "reason": "the first"},
        "trials": [trial],
    }
    assert "test/rankme/rank" in _comparison(result) and "12.3" in _comparison(result)
    table = trial_table([{**trial, "metrics": measured}])
    assert "rankme/rank" in table and "11.5" in table and "kNN" not in table
    assert "| test/rankme/rank | 12.3" in overview._comparison(result)
    assert "t00 won (1 completed), rankme/rank 12.3" in verdict("flat", result)["text"]
