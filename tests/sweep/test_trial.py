"""Trials as Ray Tune sees them; for those of several workers, Ray Train is played by the loop of one worker."""

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.tune.result import SHOULD_CHECKPOINT
from torch import Tensor, nn

from bgsweep.config import SweepConfig, load
from bgsweep.data.sharing import Sharing, share_within, sharing
from bgsweep.distributed import pulse
from bgsweep.distributed.train import OnEpoch
from bgsweep.distributed.trial_board import TrialBoard
from bgsweep.errors import UserError
from bgsweep.methods import Method
from bgsweep.stopping import Request
from bgsweep.storage.uri import Uri
from bgsweep.sweep.first_set_up import set_up
from bgsweep.sweep.searcher import CHECKPOINT, EPOCHS, FIXED, NUMBER, VALUES
from bgsweep.sweep.trial import InProcessTrial, dump, train_on_ray
from bgsweep.training import build, load_checkpoint
from bgsweep.training.seeded_run import start

TINY = Path(__file__).parents[1] / "tiny.yaml"
BOARD = ("test board", "test")


def proposal(number: int, checkpoint: Uri | None = None, epochs: int = 0) -> dict[str, Any]:
    values = {"background.remove": 0.5}
    return {VALUES: values, FIXED: None, NUMBER: number, CHECKPOINT: checkpoint, EPOCHS: epochs}


@pytest.fixture(autouse=True)
def _alone_afterwards() -> Iterator[None]:
    yield
    share_within(None)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Uri]:
    """The folders that were trained in; as on Ray Train, a run that is restored reports only what is not known."""
    folders: list[Uri] = []

    def train(
        config: SweepConfig, folder: Uri, on_epoch: OnEpoch, seeds: int, _: Any, pulse: Any, on_kept: Any, known: int
    ) -> Uri:
        folders.append(folder)
        checkpoint = Path(folder) / "checkpoint_1"
        run = start(config, seeds)
        if checkpoint.exists():
            run.restore(checkpoint)
            for metrics in run.history[known:]:
                on_epoch(metrics, checkpoint)
        else:
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

    def moody(*arguments: Any) -> Method:
        method = make(*arguments)
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

    class Unheard:
        """A trial's signs of life without a board."""

        def __init__(self, *_: Any) -> None:
            pass

        def __call__(self) -> Request:
            return Request.NOTHING

        def begin(self) -> None:
            pass

    monkeypatch.setattr(build, "build_method", counted)
    monkeypatch.setattr(pulse, "Pulse", Unheard)
    trial = type("Bound", (InProcessTrial,), {"tree": dump(file), "sweep": "one", "board": BOARD})(proposal(0))
    trial.step()
    trial.save_checkpoint(str(tmp_path))
    assert sharing() == Sharing(repr(BOARD), "t00", views=True)
    assert trial.reset_config(proposal(1))
    assert sharing() == Sharing(repr(BOARD), "t01", views=True)
    assert len(made) == 2 * seeds and trial.step()["done"]


@pytest.mark.parametrize("seeds", [1, 2])
def test_trials_of_equal_values_both_train_and_one_that_had_ended_reports_what_it_measured(
    seeds: int, tmp_path: Path, trained: list[Uri], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = dump(load(TINY, ["workers.count=2", "training.epochs=2", f"search.seeds={seeds}"]))
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr("ray.tune.report", reports.append)
    for number in (0, 1):
        train_on_ray(tree, tmp_path, proposal(number), BOARD)
    assert [each["epoch"] for each in reports] == [1, 2, 1, 2] and trained[0] != trained[1]
    # The driver dies before it knows of the first trial's end, or before it knows of its last epoch.
    for epochs in (2, 1):
        train_on_ray(tree, tmp_path, proposal(0, reports[1]["checkpoint"], epochs), BOARD)
    assert trained[2:] == [str(trained[0])] * 2
    last, again, missed = reports[1], *reports[4:]
    assert again == missed and again["history"] == [
        {key: value for key, value in last.items() if key not in ("history", "warnings", "checkpoint")}
    ]
    assert again["checkpoint"] == last["checkpoint"] and "knn_top1" in again


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The board of a sweep, whose trials tell it of every step."""
    monkeypatch.setattr(pulse, "_SEND_EVERY", 0.0)
    monkeypatch.setattr("bgsweep.distributed.resources.machine_share", lambda: 1.0)  # for Ray's own processes only
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    actor: Any = ray.remote(num_cpus=0)(TrialBoard)
    made = actor.options(name=BOARD[0], namespace=BOARD[1]).remote()
    ray.get(made.__ray_ready__.remote())
    yield made
    ray.shutdown()


def untimed(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in metrics.items() if name not in ("images_per_second", "data_wait")}
        for metrics in result["history"]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2])
def test_a_trial_checkpoints_as_asked_and_within_an_epoch_and_goes_on_from_there_bit_for_bit(
    seeds: int, tmp_path: Path, board: Any
) -> None:
    short = ["training={epochs: 3, batch_size: 64, checkpoint_every: 2}", "evaluate.every=3"]
    tree = dump(load(TINY, [*short, f"search.seeds={seeds}"]))
    bound = type("Bound", (InProcessTrial,), {"tree": tree, "sweep": "one", "board": BOARD})
    whole = bound(config=proposal(0))
    results = [whole.step() for _ in range(2)]
    whole.save_checkpoint(str(tmp_path / "whole"))
    assert [[metrics["epoch"] for metrics in each["history"]] for each in results] == [[1, 2], [3]]
    assert [each[SHOULD_CHECKPOINT] for each in results] == [True, True]
    assert ["knn_top1" in each for each in results] == [False, True]  # schedulers leave out the first
    assert [each["done"] for each in results] == [False, True]

    trial = bound(config=proposal(1))
    history = untimed(trial.step())
    ray.get(board.exchange.remote({"t01": 1}))  # its driver asks for a checkpoint
    stopped = trial.step()
    assert (stopped["history"], stopped["epoch"], stopped[SHOULD_CHECKPOINT]) == ([], 2, True)
    trial.save_checkpoint(str(tmp_path / "within"))
    assert 0 < load_checkpoint(tmp_path / "within/state.pt")["step"] < 15
    resumed = bound(config=proposal(2, tmp_path / "within", 2))
    for one in (resumed, trial):  # elsewhere, and where it stands, which is asked no second time
        assert history + untimed(one.step()) == [each for result in results for each in untimed(result)]
    resumed.save_checkpoint(str(tmp_path / "resumed"))
    states = [load_checkpoint(tmp_path / name / "state.pt")["method"] for name in ("whole", "resumed")]
    assert all(value.equal(states[1][name]) for name, value in states[0].items())


@pytest.mark.slow
def test_a_trial_whose_checkpoint_tune_has_replaced_goes_on_from_the_next_and_tells_what_its_driver_lost(
    tmp_path: Path, board: Any
) -> None:
    tree = dump(load(TINY, ["training={epochs: 3, batch_size: 64}", "evaluate.every=3"]))
    bound = type("Bound", (InProcessTrial,), {"tree": tree, "sweep": "one", "board": BOARD})
    whole = bound(config=proposal(0))
    results = [whole.step(), whole.step()]
    whole.save_checkpoint(str(tmp_path / "checkpoint_000001"))  # the driver's journal ends before it
    results.append(whole.step())
    gone = proposal(0, tmp_path / "checkpoint_000000", 1)
    resumed = bound(config=gone)
    again = [resumed.step(), resumed.step()]
    assert [untimed(each) for each in again] == [untimed(each) for each in results[1:]]
    assert [each["done"] for each in again] == [False, True] and not any(each["warnings"] for each in again)

    (tmp_path / "checkpoint_000001").rename(tmp_path / "elsewhere")
    anew = bound(config=gone)
    again = [anew.step() for _ in range(3)]
    assert [untimed(each) for each in again] == [untimed(each) for each in results]
    assert again[0]["warnings"] == [f"t00: its checkpoint {gone[CHECKPOINT]} is gone, so it begins anew"]
