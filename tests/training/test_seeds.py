"""A configuration under several seeds: each seed is what it would be alone, and the mean is what counts."""

import math
from pathlib import Path

import pytest

from bgsweep.config import SweepConfig, load
from bgsweep.storage.layout import seed_checkpoints
from bgsweep.training.checkpoint import load_trained
from bgsweep.training.run import Run
from bgsweep.training.seeded_run import SeededRun

TINY = Path(__file__).parents[1] / "tiny.yaml"


@pytest.fixture
def file() -> SweepConfig:
    return load(TINY, ["training.epochs=2", "seed=3"])


def test_each_seed_trains_as_it_would_alone(file: SweepConfig) -> None:
    seeded = SeededRun(file, 2)
    alone = [
        Run(file.model_copy(update={"experiment": file.experiment.with_values({"seed": seed})})) for seed in (3, 4)
    ]
    while not seeded.finished:
        together = seeded.step_epoch()
        apart = [run.step_epoch() for run in alone]
    assert together["epoch"] == 2
    for name in ("loss", "knn_top1"):
        values = [each[name] for each in apart]
        assert [together[f"{name}/seed_3"], together[f"{name}/seed_4"]] == values and values[0] != values[1]
        assert together[name] == pytest.approx(sum(values) / 2)
        assert together[f"{name}_se"] == pytest.approx(
            abs(values[0] - values[1]) / 2
        )  # sd / sqrt(2), sd = |a-b| / sqrt(2)


def test_all_seeds_go_on_from_a_checkpoint(file: SweepConfig, tmp_path: Path) -> None:
    whole, halved = SeededRun(file, 2), SeededRun(file, 2)
    whole.step_epoch()
    expected = whole.step_epoch()
    first = halved.step_epoch()
    halved.save(tmp_path)
    again = SeededRun(file, 2)
    again.restore(tmp_path)
    assert again.metrics == first and not again.finished
    found = again.step_epoch()
    assert {name: found[name] for name in ("epoch", "loss", "knn_top1", "knn_top1_se")} == {
        name: expected[name] for name in ("epoch", "loss", "knn_top1", "knn_top1_se")
    }
    assert [load_trained(folder).experiment.seed for folder in seed_checkpoints(tmp_path, 3, 2)] == [3, 4]
    assert math.isfinite(found["loss_se"])
