"""A sweep's end: what it needs is checked before the first trial, and where it fails it is run again."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import ray

from bgsweep.config import SweepConfig, load, resolve
from bgsweep.errors import UserError
from bgsweep.evaluation import Report
from bgsweep.sweep import final_evaluation as finish
from bgsweep.sweep.events import Ended, Event, Proposed
from bgsweep.sweep.first_set_up import set_up
from bgsweep.sweep.guards import check_room
from bgsweep.sweep.pbt import PBTScheduler
from bgsweep.sweep.promotion import Decision
from bgsweep.sweep.searcher import NUMBER, VALUES, TuneSearcher
from bgsweep.sweep.trial import dump
from bgsweep.sweep.trial_record import TrialRecord
from bgsweep.tracking import Tracker, tracking_uri
from bgsweep.tracking.registry import add_version, give_alias
from bgsweep.training.final_evaluation import check_final
from bgsweep.training.seeded_run import checkpoint_bytes, start
from tests.command import bgsweep
from tests.inputs import write_images

TINY = Path(__file__).parents[1] / "tiny.yaml"
CROSSING: dict[str, Any] = {
    "background.min_area": {"uniform": [0.4, 0.9]},
    "background.max_area": {"uniform": [0.5, 1.0]},
}


def test_a_draw_that_cannot_be_trained_is_a_failed_trial_with_its_reason() -> None:
    file = resolve({"space": CROSSING, "search": {"trials": 30, "algorithm": "random"}})
    refused: dict[int, str] = {}
    events: list[Event] = []

    def refuse(config: dict[str, Any], reason: str) -> None:
        refused[config[NUMBER]] = reason

    given = {}
    proposals = TuneSearcher(file, refuse=refuse)
    while isinstance(found := proposals.suggest(str(len(given))), dict):
        given[found[NUMBER]] = found[VALUES]
        assert not file.refusal(found[VALUES])
    assert refused and sorted([*refused, *given]) == list(range(30))
    assert all("above the upper bound" in reason for reason in refused.values())
    # A resumed sweep proposes the same, those that were refused included.
    whole = TuneSearcher(file)
    for number in range(30):
        found = whole.suggest(str(number))
        assert isinstance(found, dict)
        events.append(Proposed(id=f"t{number:02d}", values=found[VALUES]))
        events.append(Ended(trial=TrialRecord(f"t{number:02d}", found[VALUES], None, "", "", "failed")))
        assert number in refused or found[VALUES] == given[number]
    assert not isinstance(TuneSearcher(file, events, refuse=refuse).suggest("again"), dict)


def test_whole_numbers_are_drawn_as_such() -> None:
    space = {"encoder.width": {"quniform": [8, 32, 8]}}
    file = resolve({"experiment": {"encoder": {"name": "resnet10"}}, "space": space, "search": {"trials": 12}})
    proposals = TuneSearcher(file)
    found = [proposals.suggest(str(number)) for number in range(12)]
    drawn = [each[VALUES]["encoder.width"] for each in found[1:] if isinstance(each, dict)]
    assert len(drawn) == 11 and all(isinstance(value, int) for value in drawn) and set(drawn) <= {8, 16, 24, 32}


def test_a_population_takes_over_only_values_that_go_together(tmp_path: Path) -> None:
    import random

    file = resolve(
        {
            "experiment": {"training": {"epochs": 9}},
            "space": CROSSING,
            "search": {"scheduler": "pbt", "perturb_epochs": 3},
        }
    )
    population = PBTScheduler(file, tmp_path, 2, lambda: 2, lambda epoch, found: None)
    values = {"background.min_area": 0.6, "background.max_area": 0.61}
    found = [population._explored(values, random.Random(seed)) for seed in range(50)]
    assert not any(map(file.refusal, found)) and any(each != values for each in found)


def test_what_the_end_would_refuse_is_refused_before(tmp_path: Path) -> None:
    write_images(tmp_path)
    for split in ("train", "validation", "test"):
        (tmp_path / "flat" / split).mkdir(parents=True)
        for path in sorted((tmp_path / "photos" / split).rglob("*.jpg")):
            path.rename(tmp_path / "flat" / split / f"{path.parent.name}-{path.name}")
    small = {"encoder": {"name": "resnet10", "width": 4}, "training": {"batch_size": 8}, "workers": {"device": "cpu"}}
    small |= {"method": {"queue_size": 16, "hidden_dim": 8, "embedding_dim": 4}, "views": {"size": 16}}
    unlabelled = resolve(
        {"experiment": {**small, "data": {"images": str(tmp_path / "flat"), "loader_workers": 0}}}  # type: ignore[dict-item]
    )
    with pytest.raises(UserError, match="needs images in class folders; without classes"):
        check_final(unlabelled)
    mistyped = resolve({"experiment": small, "space": {"encoder.name": {"choice": ["resnet10", "resnet51"]}}})
    with pytest.raises(UserError, match=r"space\.encoder\.name: resnet51: encoder\.name: no model 'resnet51'"):
        set_up(dump(mistyped))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_masks_that_do_not_say_what_is_foreground_end_a_sweep_before_its_first_trial(
    split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path)
    path = next((tmp_path / "masks" / split).rglob("*.png"))
    cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) // 255)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"masks/{split}/\S+\.png: its foreground is 1; .*\(1 of the \d+ masks"):
        set_up(dump(load("mine.yaml", ["space.background.remove={uniform: [0, 0.5]}"])))


def test_masks_that_leave_the_background_of_most_views_end_a_sweep_before_its_first_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All arms would be the same; not so where no background augmentation is searched."""
    write_images(tmp_path)
    for path in (tmp_path / "masks/train").rglob("*.png"):
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) * 0)
    monkeypatch.chdir(tmp_path)
    searched = load("mine.yaml", ["background={}", "space.background.random={uniform: [0, 0.5]}"])
    with pytest.raises(UserError, match=r"photos/train: 100% of 32 views would keep their background"):
        set_up(dump(searched))
    assert searched.augments_background
    assert not load("mine.yaml", ["background={}", "space.optimizer.lr={uniform: [0.1, 0.5]}"]).augments_background


def test_warnings_of_what_is_set_up_first_are_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path)
    (tmp_path / "photos/train/dress/phone.heic").write_bytes(b"ftypheic")
    monkeypatch.chdir(tmp_path)
    _, notes, _ = set_up(dump(load("mine.yaml", ["space.background.remove={uniform: [0, 0.5]}"])))
    (line,) = notes
    assert "cannot read .heic" in line


def test_checkpoints_of_all_trials_must_fit(tmp_path: Path) -> None:
    run = start(load(TINY))
    run.step_epoch()
    actual = run.save(tmp_path).stat().st_size
    # Of so small a network a fifth of the file is names.
    assert actual * 0.7 < checkpoint_bytes(run) < actual * 1.05
    check_room(tmp_path / "not" / "there", actual, 3)
    with pytest.raises(UserError, match=r"the checkpoints of 3 trials.*search\.trials"):
        check_room(tmp_path / "not" / "there", 2**60, 3)


@pytest.mark.parametrize("fails", [False, True])
def test_what_the_verdict_does_not_need_is_logged_when_the_gpus_are_free(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    @contextlib.contextmanager
    def reserved(_: SweepConfig, name: str) -> Iterator[SimpleNamespace]:
        steps.append("reserved")
        yield SimpleNamespace(options={"num_gpus": 1}, helpers=0, warning="")
        steps.append("free")

    def remote(**options: float) -> Any:
        def begin(task: Any, *_: Any) -> Any:
            steps.append(f"{task.__name__} {options.get('num_gpus', 0)}")
            if task is finish._log_runs and fails:
                raise ray.exceptions.RayError("no room\nat the disk")
            return "" if task is finish._log_runs else {"best": 1, "warnings": ["w"]}

        return lambda task: SimpleNamespace(remote=lambda *told: begin(task, *told))

    monkeypatch.setattr(finish, "reserved", reserved)
    monkeypatch.setattr(finish.ray, "remote", remote)
    monkeypatch.setattr(finish.ray, "get", lambda found: found)
    tracker: Any = SimpleNamespace(address="a", flush=lambda timeout: True)
    verdict = finish.evaluate_and_register_best(load(TINY), tracker, SimpleNamespace(sweep="s"))  # type: ignore[arg-type]
    assert steps == ["reserved", "_evaluate_and_register 1", "free", "_log_runs 0"]
    missing = ["datasets, images or models of some trials are not in MLflow: at the disk"] if fails else []
    assert verdict == {"best": 1, "warnings": [*missing, "w"]}


@pytest.mark.faults
def test_an_end_that_failed_is_run_again_with_other_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise MemoryError("no room")

    (tmp_path / "tiny.yaml").write_bytes(TINY.read_bytes())
    store = ["--store", "odd?store %20"]  # quoted wherever an address is made of it
    monkeypatch.setattr(SweepConfig, "check_draws", lambda file: None)
    with monkeypatch.context() as patched:
        patched.setattr(finish, "_evaluate_and_register", broken)
        space = [f"space.{key}={value}" for key, value in CROSSING.items()]
        settings = [
            "search.trials=4",
            "search.seed=8",
            "training.epochs=1",
            "search.scheduler=none",
            "register.name=ann's",
        ]
        failed = bgsweep("sweep", "tiny.yaml", *space, *settings, "--name", "one", *store, folder=tmp_path)
    assert failed.returncode == 2 and "Traceback" not in failed.stderr
    assert "failed for good: its values cannot be combined" in failed.stderr
    (line,) = (line for line in failed.stderr.splitlines() if line.startswith("error: "))
    assert "MemoryError: no room" in line and "bgsweep sweep --resume one" in line
    assert "no room" in (tmp_path / store[1] / "sweeps/one/end_error.txt").read_text()

    refused = bgsweep("sweep", "--resume", "one", "search.seed=5", *store, folder=tmp_path)
    assert refused.returncode == 2 and "search.seed: cannot change within sweep one" in refused.stderr
    again = bgsweep("sweep", "--resume", "one", "evaluate.knn.k=3", *store, "--json", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert '"knn": "k 3, ' in again.stdout
    over = bgsweep("sweep", "--resume", "one", *store, folder=tmp_path)
    assert over.returncode == 2 and "the sweep has ended" in over.stderr
    other = bgsweep("sweep", "--resume", "one", "register.name=other", *store, folder=tmp_path)
    assert other.returncode == 0, other.stderr
    listed = bgsweep("models", *store, folder=tmp_path).stdout
    assert "ann's" in listed and "other" in listed
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [store[1]]
    assert np.count_nonzero(
        [" failed" in line for line in bgsweep("status", "one", *store, folder=tmp_path).stdout.splitlines()]
    )


def test_a_repeated_end_leaves_its_own_decision_and_numbers_at_the_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 2 was a challenger since the champion could not be evaluated; the end is run again, and it is better."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    winner = load(TINY, ["register.name=tiny"])
    with Tracker(tracking_uri(tmp_path)) as tracker:
        runs = [tracker.pretrain_run(name, winner) for name in ("earlier", "winner")]
        made = [tracker.client.create_logged_model(tracker.experiment_id, "encoder", source_run_id=run) for run in runs]
        give_alias(tracker, "tiny", add_version(tracker, runs[0], made[0].model_id, "tiny", {}), "champion")
        best = TrialRecord("t03", {}, None, winner.experiment.digest, runs[1])
        ending = finish.SearchOutcome("study", "parent", [best], best, None)

        def end(knn: float, decision: Decision) -> dict[str, Any]:
            report = Report(knn, knn, None, None, {}, None)
            return finish._register(tracker, ending, winner, made[1].model_id, report, decision, None)[0]

        end(0.5, Decision("challenger", "the champion cannot be evaluated here", 1))
        before = tracker.client.get_model_version("tiny", "2").tags
        assert end(0.75, Decision("champion", "better", 1)) == {"name": "tiny", "version": 2, "alias": "champion"}
        aliases = tracker.client.get_registered_model("tiny").aliases
        assert {alias: int(version) for alias, version in aliases.items()} == {"champion": 2}
        changed = {"decision": "champion", "reason": "better"}
        changed |= {name: "0.7500" for name, value in before.items() if value == "0.5000"}
        assert len(changed) > 2 and tracker.client.get_model_version("tiny", "2").tags == before | changed
