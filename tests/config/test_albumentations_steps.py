"""`views.albumentations` in files: mistakes, keys that are searched, and digests."""

from pathlib import Path

import pytest

import bgsweep as bg
from bgsweep.config.review import review
from bgsweep.errors import UserError
from bgsweep.sweep.searcher import fixed_points

TINY = Path(__file__).parents[1] / "tiny.yaml"
STEPS = "views.albumentations=[{ColorJitter: {brightness: 0.4, p: 0.8}}, {Posterize: {num_bits: 4}}, ToGray]"
LISTS = "views.albumentations=[[{Solarize: {p: 0.1}}], [{Solarize: {p: 0.2}}, {Blur: {p: 0.1}}, {Blur: {p: 0.3}}]]"


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("[ColorJiter]", "views.albumentations.ColorJiter: Albumentations has no such transform; did you mean `ColorJ"),
        (
            "[{ColorJitter: {brightnes: 1}}]",
            "views.albumentations.ColorJitter.brightnes: unknown argument; did you mean `brightness`? known: br",
        ),
        ("[{ToGray: {p: 2}}]", "views.albumentations.ToGray.p: Input should be less than or equal to 1 (given: 2)"),
        ("[[ToGray], [{Blur: {blr_limit: 3}}]]", "views.albumentations.1.Blur.blr_limit: unknown argument; did you"),
        ("[{OneOf: {transforms: [ToGry]}}]", "views.albumentations.OneOf.ToGry: Albumentations has no such transform"),
        (
            "[{OneOf: {transforms: [ToGray], p: 2}}]",
            "albumentations.OneOf.p: a probability is needed, 0 to 1 (given: 2)",
        ),
        ("[{Sharpen: {alpha: {}}}]", "views.albumentations.Sharpen.alpha: "),
        ("[HorizontalFlip]", "views.albumentations.HorizontalFlip: is not a pixel-level transform, and the foreground"),
        ("[Normalize]", "views.albumentations.Normalize: views stay uint8 until they are on the device, which normal"),
        ("[{FDA: {p: 1}}]", "views.albumentations.FDA: needs fda_metadata besides the image, which views do not have"),
        ("{ToGray: {p: 1}}", "views.albumentations: a list of transforms is needed, such as [{ColorJitter: {p: 0.8}}"),
        ("[{ToGray: {p: 1}, Blur: {}}]", "a transform is written NAME or NAME: {ARGUMENT: VALUE, …}"),
        ("[[ToGray], ToGray]", "views.albumentations: give one list of transforms, two (first view, others), or three"),
        ("[[], [], [], []]", "views.albumentations: give one list of transforms, two (first view, others), or three"),
    ],
)
def test_a_mistake_is_told_in_one_line(value: str, error: str) -> None:
    with pytest.raises(UserError) as found:
        bg.load_config(TINY, [f"views.albumentations={value}"])
    assert error in str(found.value) and "\n" not in str(found.value)


def test_they_run_in_the_loader_and_replace_our_colours(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match=r"views.albumentations: these transforms run in the loader; set views.photom"):
        bg.load_config(TINY, [STEPS, "views.photometric=device"])
    review(bg.load_config(TINY, [STEPS, "views.gray=0.5"]))
    assert "views.gray has no effect: views.albumentations replaces it" in caplog.text


def test_arguments_are_keys(caplog: pytest.LogCaptureFixture) -> None:
    plain, own = (bg.load_config(TINY, overrides).experiment for overrides in ([], [STEPS]))
    assert plain.digest != own.digest
    assert own.value("views.albumentations.ColorJitter.brightness") == 0.4
    changed = own.with_values(
        {"views.albumentations.ColorJitter.brightness": 0.3, "views.albumentations.ToGray.p": 1.0}
    )
    assert changed.views.albumentations == [
        {"ColorJitter": {"brightness": 0.3, "p": 0.8}},
        {"Posterize": {"num_bits": 4}},
        {"ToGray": {"p": 1.0}},
    ]
    assert changed.digest != own.digest
    assert own.value("views.albumentations.ToGray.p") == 0.5, "Albumentations' default"
    for key in ("views.albumentations.ToGray.p", "views.albumentations.Blur.p"):
        assert not plain.has(key) and own.has(key) == ("ToGray" in key)
        with pytest.raises(UserError, match=rf"{key}: the experiment has nothing under (ToGray|Blur)"):
            plain.with_values({key: 0.1})
    over = bg.load_config(TINY, [STEPS, "views.albumentations.ColorJitter.p=0.1"]).experiment
    assert over.value("views.albumentations.ColorJitter.p") == 0.1
    for steps in ("[Blur, ToGray]", "[Blur, {ToGray: null}]"):
        over = bg.load_config(TINY, [f"views.albumentations={steps}", "views.albumentations.ToGray.p=0.1"]).experiment
        assert over.views.albumentations == [{"Blur": {}}, {"ToGray": {"p": 0.1}}]
    with pytest.raises(UserError, match=r"no entry Blur, or several; name it by its number, from 0 on"):
        bg.load_config(TINY, [STEPS, "views.albumentations.Blur.p=0.1"])


def test_arguments_are_searched() -> None:
    space = [
        "space.views.albumentations.ColorJitter.brightness={uniform: [0.0, 0.8]}",
        "space.views.albumentations.Posterize.num_bits={quniform: [2, 6, 1]}",
        "space.views.albumentations.ToGray.p={uniform: [0.0, 1.0]}",  # which the file leaves at its default
    ]
    config = bg.load_config(TINY, [STEPS, *space])
    found = config.with_values(config.complete({}, lenient=True)).experiment.views.albumentations
    assert found is not None and found[0]["ColorJitter"]["brightness"] == 0.4 and found[2]["ToGray"]["p"] == 0.5
    ((name, baseline),) = fixed_points(config)
    assert name == "baseline" and baseline["views.albumentations.ToGray.p"] == 0.5, "Albumentations' default"
    config = bg.load_config(TINY, [LISTS, "space.views.albumentations.1.2.Blur.p={uniform: [0.0, 0.5]}"])
    changed = config.with_values({"views.albumentations.1.2.Blur.p": 0.5}).experiment.views.albumentations
    assert changed == [
        [{"Solarize": {"p": 0.1}}],
        [{"Solarize": {"p": 0.2}}, {"Blur": {"p": 0.1}}, {"Blur": {"p": 0.5}}],
    ]


def test_a_baseline_needs_a_value_of_an_argument_without_a_default() -> None:
    words = ["views.albumentations=[OneOf]", "space.views.albumentations.OneOf.transforms={choice: [[ToGray], [Blur]]}"]
    with pytest.raises(UserError) as found:
        bg.load_config(TINY, words)
    told = "search.baseline: the first trial has the experiment's values; views.albumentations.OneOf.transforms is sea"
    assert told in str(found.value) and "\n" not in str(found.value)
    assert fixed_points(bg.load_config(TINY, [*words, "search.baseline=false"])) == []


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("ColorJiter.p", "experiment.views.albumentations.ColorJiter names no single transform; write views.albument"),
        ("1.Blur.p", "space.views.albumentations.1.Blur.p: experiment.views.albumentations.1.Blur names no single"),
        ("0", "space.views.albumentations.0: experiment.views.albumentations names no single transform; write"),
        ("0.Solarize.q", "space.views.albumentations.0.Solarize.q: unknown argument; known: threshold_range, p"),
        ("0.Solarize.p={uniform: [0, 3]}", "space.views.albumentations.0.Solarize.p: Input should be less than or eq"),
    ],
)
def test_keys_that_lead_nowhere_are_refused(key: str, error: str) -> None:
    name, _, given = key.partition("=")
    with pytest.raises(UserError) as found:
        bg.load_config(TINY, [LISTS, f"space.views.albumentations.{name}={given or '{uniform: [0.0, 1.0]}'}"])
    assert error in str(found.value) and "\n" not in str(found.value)
