"""The command line as a user meets it: one line for every mistake, one JSON object for every program."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bgsweep.cli.evaluate import _apart
from bgsweep.cli.main import parse
from bgsweep.errors import UserError
from tests.command import bgsweep

QUICKSTART = Path(__file__).parents[2] / "search_spaces" / "quickstart.yaml"
TINY = Path(__file__).parents[1] / "tiny.yaml"


def test_what_a_shell_sees_of_a_mistake() -> None:
    command = [sys.executable, "-m", "bgsweep.cli", "sweep", "nothing.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: nothing.yaml: No such file") and done.stderr.count("\n") == 1


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "bgsweep.cli", "status", "--store", str(tmp_path)]
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, text=True, check=False)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_help_brings_in_nothing_that_takes_time() -> None:
    look = (
        "import contextlib, os, sys; from bgsweep.cli.main import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(open(os.devnull, 'w')): main(['--help'])\n"
        "print(*set(sys.modules) & set('torch ray mlflow cv2 numpy pydantic yaml rich albumentations'.split()))"
    )
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["sweep", "nothing.yaml"], "nothing.yaml: No such file"),
        (["sweeep", TINY], "'sweeep': no such command; did you mean `sweep`?"),
        (["pretrain", TINY, "background.remvoe=0.5"], "did you mean `remove`"),
        (["pretrain", TINY, "background.remove=1.5"], "less than or equal to 1"),
        (["pretrain", TINY, "data.images=nowhere", "data.masks=nowhere"], "data.images: no folder nowhere"),
        (["pretrain", TINY, "training.batch_size=1280", "method.queue_size=1280"], "960"),
        (["pretrain", TINY, "workers.device=cuda"], "workers.device"),
        (["pretrain", TINY, "encoder.name=resnet51"], "resnet51"),
        (["pretrain"], "required: file"),
        (["report", "nothing"], "no sweep nothing"),
        (["evaluate", "nothing.pt", TINY], "nothing.pt: no such checkpoint"),
        (["preview", TINY, "--out", "/proc/picture.png"], "/proc/picture.png: cannot be written"),
    ],
    ids=lambda value: " ".join(map(str, value[:1] + value[2:])) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[object], told: str) -> None:
    if arguments[:1] == ["pretrain"] and "workers.device=cuda" in arguments and _has_gpu():
        pytest.skip("this machine has a GPU")
    done = bgsweep(*arguments, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert told in lines[0]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("line", "name", "values"),
    [
        ("sweep some.yaml seed=1 --store there search.trials=3", "overrides", ["seed=1", "search.trials=3"]),
        ("submit some.yaml --address http://127.0.0.1:8265 seed=1", "overrides", ["seed=1"]),
        ("compare one --suite knn another", "models", ["one", "another"]),
    ],
)
def test_what_there_may_be_several_of_may_stand_behind_options(line: str, name: str, values: list[str]) -> None:
    assert getattr(parse(line.split()), name) == values


def test_audits_masks_may_stand_behind_options_and_an_export_is_a_model(tmp_path: Path) -> None:
    exports, images, masks = [tmp_path / "one", tmp_path / "two"], tmp_path / "images", tmp_path / "masks"
    for folder in (*exports, images, masks):
        folder.mkdir()
    for folder in exports:
        (folder / "encoder.json").write_text("{}")
    found = parse(["audit", *map(str, exports), str(images), "--out", "page.html", str(masks)])
    assert _apart([*found.models, found.images]) == ([*map(str, exports)], images, masks)
    assert _apart([*map(str, exports), str(images)]) == ([*map(str, exports)], images, None)


@pytest.mark.parametrize("line", ["sweep some.yaml --frsh seed=1", "status one another", "models one seed=1"])
def test_what_nobody_asked_for_is_refused(line: str) -> None:
    with pytest.raises(UserError, match=r"unrecognized arguments: (--frsh|another|seed=1)"):
        parse(line.split())


def test_doctor_says_what_is_here(tmp_path: Path) -> None:
    done = bgsweep("doctor", QUICKSTART, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["ok"]
    found = {check["name"]: check["found"] for check in result["checks"]}
    assert found["train"] == "sample/train, recomposed: 960 images in 10 classes"
    assert found["masks"] == "for every image"


def test_doctor_tells_of_an_unreachable_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    result = json.loads(bgsweep("doctor", "--json", folder=tmp_path).stdout)
    assert not result["ok"]
    (check,) = [check for check in result["checks"] if check["name"] == "tracking"]
    assert not check["ok"]
    assert "MLFLOW_TRACKING_URI" in check["fix"]


def test_preview_writes_an_image(tmp_path: Path) -> None:
    done = bgsweep("preview", TINY, "--json", "--images", 3, "--out", "sub/views.png", folder=tmp_path)
    result = json.loads(done.stdout)
    assert (tmp_path / "sub" / "views.png").read_bytes().startswith(b"\x89PNG")
    assert result["shares"]["removed"] == pytest.approx(0.3, abs=0.08)
    assert result["foreground"]["median"] == pytest.approx(0.5, abs=0.25)


def test_preview_shows_where_a_schedule_begins_and_ends(tmp_path: Path) -> None:
    values = ["background.remove={from: 0, to: 0.4}", "background.swap=0.3"]
    result = json.loads(bgsweep("preview", TINY, *values, "--json", "--images", 2, folder=tmp_path).stdout)
    assert result["shares"]["removed"] == 0 and result["last_shares"]["removed"] == pytest.approx(0.35, abs=0.08)
    assert result["shares"]["swapped"] == pytest.approx(0.27, abs=0.1)


def test_preview_counts_the_views_whose_foreground_is_too_large(tmp_path: Path) -> None:
    bounds = ["background.min_area=0.3", "background.max_area=0.4", "background.remove=1.0"]
    result = json.loads(bgsweep("preview", TINY, *bounds, "--json", "--images", 2, folder=tmp_path).stdout)
    outside = result["foreground"]["too_small"] + result["foreground"]["too_large"]
    assert 0.5 < outside < 1
    assert result["shares"]["kept"] == pytest.approx(outside, abs=0.02), "drawn as in training"
    assert result["shares"]["removed"] == pytest.approx(1 - outside, abs=0.02)


def test_pretrain_goes_on_where_it_was_and_evaluate_judges_it(tmp_path: Path) -> None:
    first = json.loads(bgsweep("pretrain", TINY, "--json", folder=tmp_path).stdout.splitlines()[-1])
    assert {"loss", "knn_top1", "embedding_std", "data_wait"} <= first["metrics"].keys()
    assert first["metrics"]["epoch"] == 3
    again = bgsweep("pretrain", TINY, "--json", folder=tmp_path)
    assert "epoch 1/3" not in again.stderr, "a finished run was trained again"
    assert json.loads(again.stdout.splitlines()[-1]) == first, "nor has it an MLflow run that trained nothing"

    done = bgsweep("evaluate", first["checkpoint"], TINY, "--json", folder=tmp_path)
    report = json.loads(done.stdout.splitlines()[-1])
    assert 0 < report["knn_top1"] < 1
    gap = report["backgrounds"]["mixed_same"] - report["backgrounds"]["mixed_rand"]
    assert report["backgrounds"]["bg_gap"] == pytest.approx(gap)


def test_damaged_images_are_counted_and_training_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import cv2

    from bgsweep.data.datasets.bundled import EmbeddedSample

    sample = EmbeddedSample("test")
    for index in range(0, 200, 5):
        image, split = sample[index], "test" if index % 20 == 0 else "train"
        for kind, pixels in (("images", image.image), ("masks", image.mask)):
            path = tmp_path / kind / split / sample.classes[image.label] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), pixels)
    damaged = sorted((tmp_path / "images").rglob("*.png"))[::9]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:500])
    data = ["data.images=images", "data.masks=masks", "data.validation=null", "data.holdout=0.3", "training.epochs=1"]
    size = ["training.batch_size=16", "method.queue_size=16", "evaluate.variant=mixed_rand"]
    done = bgsweep("pretrain", TINY, *data, *size, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout.splitlines()[-1])["metrics"]
    assert metrics["unreadable"] > 0 and 0 <= metrics["knn_top1"] <= 1
    assert "cannot be read" in caplog.text and "the next image stands in for it" in caplog.text


@pytest.mark.parametrize("module", ["bgsweep", "bgsweep.cli"])
def test_imports_bring_no_torch_ray_or_mlflow(module: str) -> None:
    """`import bgsweep` and `--help` are quick because nothing heavy comes with them."""
    script = f"import sys, {module}; print({{'torch', 'ray', 'mlflow', 'albumentations'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
