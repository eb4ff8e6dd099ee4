"""Trials of several workers, as Ray Tune sees them; Ray Train is played by the loop of one worker."""

import weakref
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from bgsweep.config import Experiment, SweepConfig, load
from bgsweep.distributed.train import OnEpoch
from bgsweep.errors import UserError
from bgsweep.methods import Method
from bgsweep.storage.uri import Uri
from bgsweep.sweep.searcher import CHECKPOINT, FIXED, NUMBER, VALUES
from bgsweep.sweep.trial import InProcessTrial, dump, set_up, train_on_ray
from bgsweep.training import build
from bgsweep.training.seeded_run import start

TINY = Path(__file__).parents[1] / "tiny.yaml"


def proposal(number: int, checkpoint: Uri | None = None) -> dict[str, Any]:
    return {VALUES: {"background.remove": 0.5}, FIXED: None, NUMBER: number, CHECKPOINT: checkpoint}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Uri]:
    """The folders that were trained in; as on Ray Train, a run that had ended reports nothing when it is restored."""
    folders: list[Uri] = []

    def train(config: SweepConfig, folder: Uri, on_epoch: OnEpoch, seeds: int = 1, start_at: Any = None) -> Uri:
        folders.append(folder)
        checkpoint = Path(folder) / "checkpoint_1"
        if not checkpoint.exists():
            run = start(config, seeds)
            while not run.finished:
                metrics = run.step_epoch()
                run.save(checkpoint)
                on_epoch(metrics, checkpoint)
        return checkpoint

    monkeypatch.setattr("bgsweep.sweep.trial.train", train)
    return folders


def test_an_encoder_that_cannot_be_exported_is_refused_before_the_first_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would train and be judged, and fail when it is registered."""

    class Moody(nn.Module):
        def __init__(self, encoder: nn.Module) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, images: Tensor) -> Tensor:
            features: Tensor = self.encoder(images)
            return features if features.sum() > 0 else -features

    tree = dump(load(TINY))
    set_up(tree)
    make = build.build_method

    def moody(experiment: Experiment, classes: int) -> Method:
        method = make(experiment, classes)
        method.encoder = Moody(method.encoder)
        return method

    monkeypatch.setattr(build, "build_method", moody)
    with pytest.raises(UserError, match=r"^encoder\.name: torch\.export cannot make the program .*another network$"):
        set_up(tree)


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_reused_actor_frees_a_trials_model_before_it_builds_the_next_one(
    seeds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = load(TINY, ["training.epochs=1", f"search.seeds={seeds}"])
    made: list[weakref.ref[Any]] = []
    make = build.build_method

    def counted(*arguments: Any) -> Method:
        living = sum(each() is not None for each in made)
        assert living == len(made) % seeds  # those of the same trial's other seeds
        method = make(*arguments)
        made.append(weakref.ref(method))
        return method

    monkeypatch.setattr(build, "build_method", counted)
    trial = type("Bound", (InProcessTrial,), {"tree": dump(file)})(proposal(0))
    trial.step()
    trial.save_checkpoint(str(tmp_path))
    assert trial.reset_config(proposal(1))
    assert len(made) == 2 * seeds and trial.step()["done"]


@pytest.mark.parametrize("seeds", [1, 2])
def test_trials_of_equal_values_both_train_and_one_that_had_ended_reports_what_it_measured(
    seeds: int, tmp_path: Path, trained: list[Uri], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = dump(load(TINY, ["workers.count=2", "training.epochs=2", f"search.seeds={seeds}"]))
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr("ray.tune.report", reports.append)
    for number in (0, 1):
        train_on_ray(tree, tmp_path, proposal(number))
    assert [each["epoch"] for each in reports] == [1, 2, 1, 2] and trained[0] != trained[1]
    # The driver dies before it knows of the first trial's end.
    train_on_ray(tree, tmp_path, proposal(0, reports[1]["checkpoint"]))
    assert trained[2] == str(trained[0])
    last, again = reports[1], reports[-1]
    assert len(reports) == 5 and again["history"] == [
        {key: value for key, value in last.items() if key not in ("history", "warnings", "checkpoint")}
    ]
    assert again["checkpoint"] == last["checkpoint"] and "knn_top1" in again
