"""A package outside of bgsweep that adds one part of each kind."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from ray.tune.schedulers import TrialScheduler

import bgsweep as bg
from bgsweep import testing
from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config import SuiteConfig, plugins
from bgsweep.config.experiment import mutable
from bgsweep.config.resuming import decisive
from bgsweep.data import open_splits
from bgsweep.data.loader import Batches
from bgsweep.errors import UserError
from bgsweep.evaluation.registry import evaluator_names
from bgsweep.sweep.cost import Cost, _settings, simulate
from bgsweep.sweep.events import Ended, Event, Result, Started
from bgsweep.sweep.policy import described
from bgsweep.sweep.schedulers import build_scheduler
from bgsweep.sweep.searcher import FIXED, NUMBER
from bgsweep.sweep.trial_record import TrialRecord
from tests.command import bgsweep
from tests.inputs import write_images

SITE = Path(__file__).parent / "site"
TINY = Path(__file__).parents[1] / "tiny.yaml"
TOY = "method={name: toy, embedding_dim: 8}"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package as if it were installed here: on the path, with its entry points."""
    monkeypatch.syspath_prepend(SITE)
    monkeypatch.setattr(plugins, "_loaded", {})


@pytest.mark.parametrize("name", ["toy", "toys.config:ToyConfig"])
def test_a_method_is_named_by_its_entry_point_or_its_path(name: str) -> None:
    file = bg.load_config(TINY, [f"method={{name: '{name}', embedding_dim: 8}}"])
    assert type(file.experiment.method).__name__ == "ToyConfig"
    tree = file.experiment.model_dump(mode="json")
    assert tree["method"] == {"name": name, "embedding_dim": 8, "pull": 1.0}
    again = bg.Experiment.model_validate(tree)
    assert again == file.experiment and again.digest == file.experiment.digest
    other = file.experiment.with_values({"method.pull": 2.0})
    assert other.digest != again.digest and set(decisive(again, other)) == {"method.pull"}
    assert mutable("method.pull") and not mutable("method.embedding_dim")


def test_a_section_made_in_python_is_named_after_its_class() -> None:
    from toys.config import ToyConfig

    experiment = bg.Experiment(method=ToyConfig(embedding_dim=4))  # type: ignore[arg-type, call-arg]
    assert experiment.model_dump()["method"] == {"name": "toys.config:ToyConfig", "embedding_dim": 4, "pull": 1.0}


def test_the_sweeps_driver_does_without_torch() -> None:
    look = f"import sys, bgsweep; bgsweep.load_config({str(TINY)!r}, [{TOY!r}]); print('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": f"{SITE}:{TINY.parents[1]}"}
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout == "False\n"


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        (["method.name=toi"], "experiment.method: 'toi' is not known; did you mean `toy`? known: moco_v2, byol"),
        (["method={name: toy, embedding_dim: x}"], "experiment.method.embedding_dim: a whole number is needed"),
        (["method={name: toy, embeding_dim: 8}"], "method.embeding_dim: unknown key; did you mean `embedding_dim`?"),
        (["method={name: 'toys.config:Toy'}"], "'toys.config:Toy' cannot be imported (AttributeError: module 'toys"),
        (["method={name: 'toys.method:Toy'}"], "is not a class derived from bgsweep.config.methods.MethodSection"),
        (["method={name: toy}", "background.swap=0.2"], "background.swap: BG_Swaps adds negatives, and toy has none"),
        (["space.method.name={choice: [byol, toi]}"], "space.method.name: 'toi' is not known; did you mean `toy`?"),
        (["data.dataset={name: disks}"], "data.dataset: 'disks' is not known; did you mean `discs`? known: discs"),
        (["data={dataset: {name: discs, side: small}, resize: null}"], "data.dataset.side: a whole number is needed"),
        (["data.dataset={name: discs}"], "data.resize: data.dataset gives images and masks as they are; leave one"),
        (["views.extra=[{name: posterize, bits: 9}]"], "views.extra.0.bits: Input should be less than or equal to 8"),
        (
            ["views={extra: [{name: posterize}], photometric: device}"],
            "views.extra: these transforms follow the colours, in the loader; set views.photometric: cpu",
        ),
        (["search.algorithm=toi"], "search.algorithm: did you mean `toy`? known: optuna, gp, random, grid, toy"),
        (["search={algorithm: toy, options: {low: 2}}"], "search.options.low: Input should be less than or equal to 1"),
        (["search.options={low: 2}"], "search.options: optuna has none; leave them out"),
        (["search.scheduler=margn"], "search.scheduler: did you mean `margin`? known: asha, median, pbt, none, margin"),
        (["search.scheduler=toys.searcher:ToySearcher"], "not a class derived from bgsweep.sweep.stopping_rule"),
        (["search={scheduler: margin, scheduler_options: {margin: x}}"], "search.scheduler_options.margin: a number"),
        (["search.scheduler_options={margin: 2}"], "search.scheduler_options: asha has none; leave them out"),
        (["search={scheduler: margin, metric: [knn_top1, loss], mode: [max, min]}"], "set scheduler: asha or none"),
    ],
)
def test_a_mistake_is_told_in_one_line(overrides: list[str], error: str) -> None:
    with pytest.raises(UserError) as found:
        bg.load_config(TINY, overrides)
    assert error in str(found.value) and "\n" not in str(found.value)


def test_its_keys_are_searched() -> None:
    space = ["space.method.name={choice: [byol, toy]}", "method={name: toy}"]
    own = "space.method.embedding_dim={choice: [8, 16]}"
    file = bg.load_config(TINY, [*space, own])
    assert file.typed({"method.embedding_dim": 8.0}) == {"method.embedding_dim": 8}
    with pytest.raises(UserError, match=r"space.method.pull: byol has no such key; add `when: {method.name: toy}`"):
        bg.load_config(TINY, [*space, "space.method.pull={uniform: [0.5, 2.0]}"])


def test_an_evaluator_is_named_beside_the_built_in_ones() -> None:
    assert evaluator_names("knn,toys.evaluator:ToyEvaluator,toy") == ["knn", "toys.evaluator:ToyEvaluator", "toy"]
    with pytest.raises(UserError, match=r"--suite: no evaluator 'toi'; there are: quick, paper, .*, toy$"):
        evaluator_names("toi")
    with pytest.raises(UserError, match=r"plugins.toy.power: .*greater than 0"):
        testing.check_evaluator("toy", {"power": -1})
    assert SuiteConfig().plugins == {}


@pytest.mark.parametrize("name", ["spread", "toys.config:SpreadConfig"])
def test_a_metric_is_what_trials_are_compared_by(name: str) -> None:
    words = ["search.scheduler=none", f"search.metric=['{name}', loss]"]
    file = bg.load_config(TINY, [*words, f"evaluate.metrics=[{{name: '{name}', power: 2}}]"])
    recorded = f"validation/{name}/mean"
    assert file.search.signs == {recorded: 1, "loss": -1}
    assert [one.model_dump() for one in file.measured.metrics] == [{"name": name, "power": 2.0}]
    again = bg.load_config(TINY, [*words, f"search.metric=[validation/{name}/mean, loss]"])
    assert again.search.metrics == (recorded, "loss") and again.measured.metrics[0].name == name
    with pytest.raises(UserError, match=f"search.metric: {name} yields no largest; known: mean"):
        bg.load_config(TINY, [f"search.metric={name}/largest"])
    testing.check_metric({"name": name, "power": 2})


@pytest.mark.parametrize("broken_at", [None, 2, 5])
def test_a_scheduler_stops_trials_and_goes_on_after_its_driver_died(broken_at: int | None) -> None:
    words = ["training.epochs=4", "search.grace_epochs=2", "search.scheduler_options={margin: 0.15}"]
    file = bg.load_config(TINY, [*words, "search.scheduler=margin", "search.metric=loss", "search.mode=min"])
    scheduler: Any = build_scheduler(file)[0]
    events: list[Event] = []
    ends = {}
    for number, loss in enumerate((0.9, 0.5, 0.6, 0.7, 0.3, 0.4)):
        if number == broken_at:
            scheduler, to_stop = build_scheduler(file, events)
            assert to_stop == []
        name, fixed = f"t{number:02d}", None if number else "baseline"
        trial = SimpleNamespace(config={NUMBER: number, FIXED: fixed})
        scheduler.on_trial_add(None, trial)
        events.append(Started(trial=TrialRecord(name, {}, fixed, "", "")))
        for epoch in (1, 1, 2, 3, 4):  # the first again, as after a restart
            result = {"epoch": epoch, "loss": loss}
            events.append(Result(id=name, epoch=epoch, metrics=result, seconds=1.0))
            ends[number] = epoch
            if scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
                events.append(Ended(trial=TrialRecord(name, {}, fixed, "", "", status="stopped", epochs=epoch)))
                break
    assert ends == {0: 4, 1: 4, 2: 4, 3: 2, 4: 4, 5: 4}, "the baseline is kept, and no trial ends before grace_epochs"
    assert scheduler.on_trial_result(None, trial, {"epoch": 5}) == TrialScheduler.CONTINUE, "a checkpoint alone"
    assert {"margin (the file's)", "none", "median"} <= _settings(file).keys()
    assert simulate(file, 2, Cost(1.0, 0.1, 0.1, 0.1), 0).epochs < 16 * 4


def batches(experiment: bg.Experiment) -> Any:
    pipeline = ViewPipeline(experiment.views, experiment.background, 1)
    return Batches(open_splits(experiment.data).train, pipeline, 16, seed=0, rank=0, world_size=1, workers=0).epoch(0)


def test_a_dataset_and_a_transform_make_views() -> None:
    data = "data={dataset: {name: discs, side: 40}, validation: null, loader_workers: 0}"
    plain, extra = (
        bg.load_config(TINY, [data, "training.batch_size=16", "method={name: toy}", *more]).experiment
        for more in ([], ["views.extra=[{name: posterize, bits: 2}]"])
    )
    assert plain.digest != extra.digest and plain.data.has_masks
    assert described(extra)["extra"] == [{"name": "posterize", "bits": 2}]
    splits = open_splits(plain.data)
    assert len(splits.train) + len(splits.validation) == 64 and splits.train.name.startswith("discs/train")
    first, second, again = (next(iter(batches(each))).views[0].numpy() for each in (plain, extra, extra))
    changed = [not np.array_equal(one, other) for one, other in zip(first, second, strict=True)]
    assert 0 < sum(changed) < 16, "half of the views, drawn by their keys"
    for one, other, differs in zip(first, second, changed, strict=True):
        assert np.array_equal(other, one & 192 if differs else one)
    assert np.array_equal(second, again)


def test_a_mask_method_makes_masks(tmp_path: Path) -> None:
    write_images(tmp_path)
    done = bgsweep("masks", "make", "photos", "--out", "made", "--method", "centre", "--workers", 1, folder=tmp_path)
    assert done.returncode == 0 and "32 masks by centre in made" in done.stdout, done.stderr
    first = sorted((tmp_path / "made").rglob("*.png"))[0]
    assert 0.2 < (cv2.imread(str(first), cv2.IMREAD_GRAYSCALE) == 255).mean() < 0.3
    wrong = bgsweep("masks", "make", "photos", "--out", "made", "--method", "center", folder=tmp_path)
    assert "--method: 'center' is not known; did you mean `centre`? known: network, fusion, rbd" in wrong.stderr
    weights = bgsweep("masks", "make", "photos", "--out", "x", "--method", "centre", "--weights", "y", folder=tmp_path)
    assert "--weights y: method centre takes no weights" in weights.stderr


def test_the_parts_conform() -> None:
    from toys.config import DiscsConfig
    from toys.dataset import Discs

    testing.check_dataset(lambda: Discs(DiscsConfig(), "train"))  # type: ignore[call-arg]
    testing.check_method({"name": "toy", "embedding_dim": 8})
    testing.check_evaluator("toy", {"power": 2.0})
    testing.check_searcher("toy", {"low": 0.3})
    testing.check_scheduler("margin", {"margin": 0.05})


@pytest.mark.faults
def test_all_parts_in_a_sweep_of_two_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    testing.check_two_workers({"name": "toy", "embedding_dim": 8})
    monkeypatch.setenv("PYTHONPATH", str(SITE))  # other processes find the package as an installed one
    words = [TOY, "search={algorithm: toy, trials: 3, scheduler: margin}", "space.method.pull={uniform: [0.5, 2.0]}"]
    words += ["data={dataset: {name: discs}, loader_workers: 1}", "views.extra=[{name: posterize}]"]
    words += ["training.epochs=1", "training.batch_size=32", "data.validation=null", "data.test=null"]
    words += ["evaluate.variant=mixed_rand"]
    done = bgsweep("sweep", TINY, *words, "workers.count=2", "--name", "toys", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    table = bg.runs("toys", tmp_path / "bgsweep_runs")
    assert set(table["status"]) == {"completed"} and set(table["params.method.pull"][1:]) <= {0.5, 2.0}
    found = bg.evaluate("models:/bgsweep-encoder@champion", "toy,knn", store=tmp_path / "bgsweep_runs")
    assert 0 < found["results"]["toy"]["values"]["top1"] < 1 and found["results"]["toy"]["protocol"]["power"] == 1
