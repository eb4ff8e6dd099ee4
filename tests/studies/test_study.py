"""The study's plan, its statistics, and a minute of it from runs to page."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from bgsweep.config import load
from bgsweep.config.schedule import at_epoch
from bgsweep.errors import UserError
from studies.background_shortcut import __main__ as command
from studies.background_shortcut import conduct, figures
from studies.background_shortcut.findings import COLUMNS, Found, by_run, page, write
from studies.background_shortcut.plan import StudyFile, planned, read_study

SPACES = Path(__file__).parents[2] / "search_spaces"
STUDY = SPACES / "shortcut_study.yaml"
TINY = Path(__file__).parents[1] / "tiny.yaml"


def test_all_arms_have_the_same_seeds_and_differ_in_nothing_but_the_background() -> None:
    runs = planned(read_study(STUDY, None), SPACES)
    assert len(runs) == ((4 + 3 + 3) * 2 + 4) * 3
    assert len({run.experiment.digest for run in runs}) == len(runs)
    plain = {run.seed: run.experiment for run in runs if (run.method, run.arm, run.rho) == ("byol", "none", 0.95)}
    random = {run.seed: run.experiment for run in runs if (run.method, run.arm, run.rho) == ("byol", "BG_Random", 0.95)}
    assert plain.keys() == random.keys() == {0, 1, 2}
    for seed, experiment in random.items():
        assert experiment.background.random == 0.5 and experiment.background.remove == 0
        assert experiment.with_values({"background.random": 0.0}) == plain[seed]
    assert {run.method for run in runs if run.arm == "BG_Swaps"} == {"moco_v2"}


def test_forms_are_milder_shorter_and_larger() -> None:
    whole = {run.experiment.digest for run in planned(read_study(STUDY, None), SPACES)}
    mild = planned(read_study(STUDY, "mild"), SPACES)
    assert len(mild) == (4 + 3 + 3) * 3 and {run.rho for run in mild} == {0.95}
    for run in mild:
        assert (run.experiment.digest in whole) == (run.arm == "none"), "what is trained need not be trained again"
        assert run.experiment.background.remove == (0.2 if run.arm == "BG_RM" else 0)
    quick = planned(read_study(STUDY, "quick"), SPACES)
    assert len(quick) == (4 + 3) * 2 and {run.rho for run in quick} == {0.95}
    assert all(run.experiment.training.epochs < mild[0].experiment.training.epochs for run in quick)
    runs = planned(read_study(STUDY, "paired"), SPACES)
    falling = next(run.experiment for run in runs if run.arm == "BG_Random .4 to 0")
    course = [at_epoch(falling.background.random, epoch, falling.training.epochs) for epoch in range(96)]
    assert np.mean(course) == pytest.approx(0.2) and course[0] == 0.4 and course[-1] == 0
    paired = {run.experiment.digest for run in runs}
    for form in ("swaps", "donors", "fills"):
        study = read_study(STUDY, form)
        runs = planned(study, SPACES)
        assert len({run.experiment.digest for run in runs}) == len(runs), "every arm differs from every other"
        assert {run.experiment.digest for run in runs if run.arm in ("none", study.reference)} < paired
    assert conduct._sweep_of(runs)["search"]["keep_checkpoints"] is None, "every run is judged after the sweep"
    larger, unbiased, byol = (planned(read_study(STUDY, form), SPACES) for form in ("larger", "unbiased", "byol"))
    assert {run.rho for run in unbiased} == {0.0} and {run.arm for run in unbiased} == {"none", "BG_Random"}
    shortcut = {run.seed: run.experiment for run in larger if run.arm == "BG_Random"}
    for run in unbiased:
        assert run.arm == "none" or run.experiment == shortcut[run.seed].with_values({"data.shortcut.rho": 0.0})
    searched, rho80 = (planned(read_study(STUDY, form), SPACES) for form in ("searched", "rho80"))
    whole = {run.experiment.digest for run in larger}
    for run in (*searched, *rho80):
        same = run.experiment.with_values({"data.shortcut.rho": 0.95})
        assert (same.digest in whole) == (run.arm != "sweep's best")
    found = load(SPACES.parent / "studies/background_shortcut/searched.yaml").experiment
    best = next(run.experiment for run in searched if run.arm == "sweep's best")
    off = {f"background.{key}": 0.0 for key in ("remove", "random", "swap")}
    assert best.with_values({**off, "seed": 100}).digest == found.digest, "trained as in the sweep"
    assert {run.arm for run in byol} == {"none", "BG_RM", "BG_Random"}
    assert {run.experiment.encoder for run in byol} == {run.experiment.encoder for run in larger}
    large = planned(read_study(STUDY, "gpu"), SPACES)
    assert {run.experiment.background.swap_form for run in [*mild, *large]} == {"full"}
    assert {run.experiment.views.size for run in large} == {128}
    assert {run.experiment.encoder.name for run in large} == {"resnet18"}


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("seeds: [0, 1, 2]", "seeds: [0]", r"study.yaml: seeds: .* at least 2"),
        ("methods: [byol]", "methods: [byo]", r"study.yaml: forms.byol: byo: `methods` has moco_v2, byol, swav only"),
        ("moco_v2: [method.queue", "moco: [method.queue", r"study.yaml: forms.larger: moco: `methods` has"),
    ],
)
def test_a_mistake_in_the_study_is_one_line(tmp_path: Path, right: str, wrong: str, message: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.read_text().replace(right, wrong, 1))
    with pytest.raises(UserError, match=message):
        read_study(path, None)


def test_results_stand_below_what_people_wrote(tmp_path: Path) -> None:
    out = tmp_path / "study.md"
    out.write_text("# Question\n\n<!-- results: written by `make study` -->\n\nold\n")
    write(out, "new\n")
    assert out.read_text() == "# Question\n\n<!-- results: written by `make study` -->\n\nnew\n"


@pytest.fixture(scope="module")
def measured() -> tuple[StudyFile, Found]:
    """As if BG_RM had 35 points more than the other arms, and a spread over seeds."""
    study = read_study(STUDY, "quick").model_copy(update={"seeds": (0, 1, 2)})
    runs = planned(study, SPACES)
    keys = [
        f"{train}/{probe}/{name}" for train in ("biased", "unbiased") for probe in ("knn", "linear") for name in COLUMNS
    ]
    right = {"none": 60, "BG_RM": 130, "BG_Random": 60, "BG_Swaps": 60}
    values = [
        {key: (np.arange(200) < right[run.arm] + (run.seed if run.arm == "BG_RM" else 0)).astype(float) for key in keys}
        | {"unbiased/few_10": np.zeros(200)}
        for run in runs
    ]
    return study, by_run(runs, values)


def test_the_page_tells_differences_by_seed_and_image_and_marks_sure_ones(measured: tuple[StudyFile, Found]) -> None:
    text = page(*measured, "Measured today.", "figures")
    assert "| moco_v2, none | 30.0 |" in text
    assert "| byol, BG_RM | 65.5 (**+35.5 [+28." in text
    assert "| byol, BG_Random | 30.0 (+0.0 no interval) |" in text
    assert "byol, BG_Swaps" not in text and text.count("10 % labels") == 1


@pytest.mark.parametrize(
    ("reference", "arms", "ends"),
    [("none", ["BG_RM", "BG_Random"], [28, 43]), ("BG_RM", ["none", "BG_Random"], [-43, -28])],
)
def test_the_picture_shows_each_arms_difference_from_the_reference_with_its_interval(
    measured: tuple[StudyFile, Found], reference: str, arms: list[str], ends: list[int]
) -> None:
    study, found = measured
    axes = figures._arms(study.model_copy(update={"reference": reference}), found, 0.95).axes[3]
    assert [label.get_text() for label in axes.get_yticklabels()] == arms
    assert axes.get_title().endswith("30.0 without" if reference == "none" else "65.5 with BG_RM")
    _, interval, mean, seeds, *_ = axes.get_lines()
    assert interval.get_xdata() == pytest.approx(ends, abs=1)
    assert list(mean.get_xdata()) == [pytest.approx(35.5 * np.sign(ends[0]))]
    assert list(np.abs(seeds.get_xdata())) == pytest.approx([35, 35.5, 36])


@pytest.mark.faults  # for its time
def test_a_minute_of_the_study_and_what_is_finished_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tree = yaml.safe_load(STUDY.read_text())
    tree |= {"methods": {"moco_v2": str(TINY)}, "arms": {"BG_RM": {"background.remove": {"from": 0.5, "to": 0.0}}}}
    tree |= {"rhos": [0.95], "seeds": [0, 1], "overrides": ["data.shortcut={}", "training.epochs=1"]}
    tree["curve"]["values"] = []
    Path("study.yaml").write_text(yaml.safe_dump(tree))
    assert command.main(["study.yaml", "--out", "study.md"]) == 0
    text = Path("study.md").read_text()
    assert text.count("| moco_v2, none |") == text.count("| moco_v2, BG_RM |") == 4
    assert "### kNN among the biased images" in text
    assert cv2.imread("study/images.png").shape[1] > 7 * 128
    assert "BG_RM" in Path("study/rho_0.95.svg").read_text()

    monkeypatch.setattr(conduct, "sweep", lambda *_: pytest.fail("a finished run was trained again"))
    assert command.main(["study.yaml", "--out", "again/study.md"]) == 0
    assert Path("again/study.md").read_text() == text

    # Interrupted before the third seed's runs: the page shows the seeds that have all of theirs.
    monkeypatch.setattr(conduct, "sweep", lambda *_: None)
    Path("study.yaml").write_text(yaml.safe_dump(tree | {"seeds": [0, 1, 2]}))
    assert command.main(["study.yaml", "--out", "part/study.md"]) == 0
    first, *rest = Path("part/study.md").read_text().splitlines()[2:]
    assert "Seeds 0, 1 of 0, 1, 2:" in first and rest == text.splitlines()[3:]
    Path("study.yaml").write_text(yaml.safe_dump(tree | {"seeds": [0, 2]}))
    assert command.main(["study.yaml", "--out", "less/study.md"]) == 2
