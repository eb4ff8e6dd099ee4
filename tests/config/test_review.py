"""Settings that contradict one another are refused, and those without effect are told, once and in a line."""

from pathlib import Path

import pytest

from bgsweep.config import load, review, review_search
from bgsweep.errors import UserError
from tests.command import bgsweep

TINY = Path(__file__).parents[1] / "tiny.yaml"
SPACES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))
SPACES = [path for path in SPACES if path.name != "shortcut_study.yaml"]  # a plan of several sweeps
RANGE = "space.optimizer.lr={loguniform: [0.01, 0.1]}"
IDENTICAL = "so that 15 trials would be the same; name keys to search"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ([], f"space: nothing is searched, {IDENTICAL}"),
        (["space.optimizer.lr={choice: [0.1]}"], f"space: every searched key has one value only, {IDENTICAL}"),
        ([RANGE, "search.metric=loss", "search.mode=max"], "search.mode: the best loss is the lowest; set it to min"),
        ([RANGE, "search.mode=min"], "search.mode: the best validation/knn/top1 is the highest; set it to max"),
        (
            [RANGE, "workers.device=cuda", "search.gpus=0"],
            "search.gpus: 0 gives trials no GPU, and workers.device asks for cuda",
        ),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(overrides: list[str], told: str) -> None:
    with pytest.raises(UserError) as caught:
        review_search(load(TINY, overrides))
    assert told in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("command", [["sweep"], ["plan", "--gpus", "1"], ["submit", "--address", "http://127.0.0.1:9"]])
def test_it_is_refused_by_every_command_that_searches(command: list[str], tmp_path: Path) -> None:
    done = bgsweep(command[0], TINY, *command[1:], folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: space: nothing is searched")
    assert list(tmp_path.iterdir()) == []


WITHOUT_EFFECT = [
    (["background.remove=0", "background.fill=black"], "background.fill has no effect: background.remove is 0"),
    (["background.random=0", "background.donor=plain"], "background.donor has no effect: background.random is 0"),
    (
        ["background.remove=0", "background.random=0", "background.min_area=0.1"],
        "background.min_area has no effect: there is no background augmentation",
    ),
    (["background.apply_to=all"], "background.apply_to has no effect: views.small_crops is 0"),
    (["views.small_size=48"], "views.small_size has no effect: views.small_crops is 0"),
    (["views.blur_sigma=[0.5, 1.0]"], "views.blur_sigma has no effect: views.blur is 0"),
    (["views.jitter_p=0", "views.jitter=[0.8, 0.8, 0.8, 0.2]"], "views.jitter has no effect: views.jitter_p is 0"),
    (["data.holdout=0.3"], "data.holdout has no effect: all splits are named"),
    (["optimizer.trust=0.01"], "optimizer.trust has no effect: only lars has it"),
    (["optimizer.betas=[0.8, 0.9]"], "optimizer.betas has no effect: only adamw has it"),
    (["optimizer.name=adamw", "optimizer.momentum=0.8"], "optimizer.momentum has no effect: adamw takes betas"),
    (["optimizer.clip_each=true"], "optimizer.clip_each has no effect: optimizer.clip_norm is not set"),
    (["workers.gpus=1"], "workers.gpus has no effect: workers.device is cpu"),
    ([], None),
]
DOUBTFUL = [
    (
        ["search.grace_epochs=50"],
        "search.grace_epochs: 50 is above training.epochs 3, so that no trial is stopped early",
    ),
    (["search.grace_epochs=50", "search.scheduler=median"], "search.grace_epochs: 50 is above"),
    (["search.reduction=4", "search.scheduler=none"], "search.reduction has no effect: search.scheduler is not asha"),
    (["search.perturb_epochs=2"], "search.perturb_epochs has no effect: search.scheduler is not pbt"),
    (["search.grace_epochs=50", "search.scheduler=none"], "search.grace_epochs has no effect: nothing stops trials"),
    (["search.gpus=1"], "search.gpus has no effect: workers.device is cpu"),
    (["space.background.fill={choice: [black, noise]}", "background.remove=0"], "space.background.fill has no effect"),
    (["evaluate.every=3"], "search.scheduler: asha stops no trial: evaluate.every 3 leaves one evaluation"),
    (["optimizer.warmup_epochs=3"], "optimizer.warmup_epochs: 3 is not below training.epochs 3"),
    (
        ["search.metric=bg_gap", "search.mode=max"],
        "search.mode: trials with the highest validation/knn/bg_gap win",
    ),
    (["search.trials=2", "space.points=[{}, {}]"], "search.trials: 2 leaves out 1 of space.points"),
]


@pytest.mark.parametrize(("overrides", "told"), WITHOUT_EFFECT)
def test_a_setting_without_effect_is_told_once(
    overrides: list[str], told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    review(load(TINY, overrides))
    assert caplog.messages == ([told] if told else [])
    caplog.clear()
    review_search(load(TINY, [*overrides, RANGE]))
    assert caplog.messages == ([told] if told else [])


@pytest.mark.parametrize(("overrides", "told"), DOUBTFUL)
def test_what_is_doubtful_about_a_search_is_told_once(
    overrides: list[str], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    review_search(load(TINY, [RANGE, *overrides]))
    (line,) = caplog.messages
    assert line.startswith(told)


def test_fewer_combinations_than_trials_and_a_grids_own_number(caplog: pytest.LogCaptureFixture) -> None:
    options = "space.optimizer.lr={choice: [0.1, 0.2, 0.3]}"
    review_search(load(TINY, [options]))
    assert caplog.messages == [
        "search.trials: the space has 3 combinations for 15 trials, so that some are trained more than once; "
        "search.algorithm: grid takes each once"
    ]
    caplog.clear()
    review_search(load(TINY, [options, "search.algorithm=grid", "search.trials=5"]))
    assert caplog.messages == ["search.trials has no effect: the grid decides how many there are"]


def test_what_the_space_switches_on_has_an_effect(caplog: pytest.LogCaptureFixture) -> None:
    space = ["space.background.remove={uniform: [0, 0.5]}", "space.optimizer.name={choice: [sgd, adamw]}"]
    review_search(load(TINY, [*space, "background.remove=0", "background.fill=black", "optimizer.betas=[0.8, 0.9]"]))
    review_search(load(TINY, ["optimizer.clip_each=true", "space.optimizer.clip_norm={uniform: [1, 5]}"]))
    assert caplog.messages == []


@pytest.mark.parametrize("path", [TINY, *SPACES], ids=lambda path: path.stem)
def test_nothing_is_wrong_with_the_files_that_we_ship(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    review(load(path, ["data.masks=masks"] if path.stem.endswith("_imagenet") else []))
    if path != TINY:
        review_search(load(path, ["data.masks=masks"] if path.stem.endswith("_imagenet") else []))
    assert caplog.messages == []


def test_pretrain_and_preview_tell_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    done = bgsweep("preview", TINY, "data.holdout=0.3", "--images", 1, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert caplog.messages == ["data.holdout has no effect: all splits are named"]
