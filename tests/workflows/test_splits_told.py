"""Commands say which splits they made, refuse those that share images, and exit with 2 where one is missing."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command import bgsweep
from tests.inputs import write_images

SAID = "my photos: 2 class folders, no splits: 10% of each class is held out for validation and test each"
TINY = ("training.epochs=1", "training.batch_size=8")


def flat(folder: Path) -> None:
    """Class folders without splits, in a folder with a space in its name."""
    write_images(folder)
    for kind in ("photos", "masks"):
        shutil.move(folder / kind / "train", folder / f"my {kind}")
    text = (
        (folder / "mine.yaml").read_text().replace("images: photos, masks: masks", "images: my photos, masks: my masks")
    )
    (folder / "mine.yaml").write_text(text)


@pytest.mark.parametrize(
    "command", [["doctor", "mine.yaml"], ["preview", "mine.yaml", "--images", "2", "--out", "v.png"]]
)
def test_class_folders_without_splits_are_told(tmp_path: Path, command: list[str]) -> None:
    flat(tmp_path)
    done = bgsweep(*command, folder=tmp_path)
    assert done.returncode == 0 and SAID in re.sub(r"\s+", " ", done.stdout + done.stderr), done.stderr


def test_what_pretraining_held_out_is_told_and_recorded(tmp_path: Path) -> None:
    flat(tmp_path)
    done = bgsweep("pretrain", "mine.yaml", *TINY, folder=tmp_path)
    assert done.returncode == 0 and SAID in done.stderr, done.stderr
    (record,) = (tmp_path / "bgsweep_runs").rglob("splits.json")
    (line,) = json.loads(record.read_text())["left_out_or_held_out"]
    assert line.startswith(SAID)


def _lose(path: str) -> Callable[[Path], None]:
    return lambda folder: shutil.rmtree(folder / path)


def _write(*changes: tuple[str, str]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / "mine.yaml").read_text()
        for old, new in changes:
            text = text.replace(old, new)
        (folder / "mine.yaml").write_text(text)

    return change


def _split(text: str) -> Callable[[Path], None]:
    return _write(("loader_workers: 0", f"loader_workers: 0, {text}"))


LACKS = {
    "no images": (_lose("photos"), r"--\s+data .*data\.images: no folder photos"),
    "no train split": (
        _split("train: trian"),
        r"--\s+data .*has no split 'trian' .*did you mean 'train'",
    ),
    "no test split": (_split("test: held"), r"--\s+data .*has no split 'held'"),
    "no masks of the test split": (_lose("masks/test"), r"--\s+data .*masks"),
    "splits that share images": (
        _split("test: train"),
        r"--\s+data .*data\.test: 'train' and data\.train: 'train' share",
    ),
    "too few images": (
        _write(("batch_size: 8", "batch_size: 64"), ("queue_size: 16", "queue_size: 64")),
        r"--\s+batch .*one batch of 64 .*such as to 16",
    ),
}


@pytest.mark.parametrize(("change", "said"), LACKS.values(), ids=LACKS)
def test_doctor_exits_with_2_where_a_command_would_fail(
    tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    write_images(tmp_path)
    change(tmp_path)
    done = bgsweep("doctor", "mine.yaml", folder=tmp_path)
    assert done.returncode == 2 and re.search(said, done.stdout), done.stdout


def test_pretraining_needs_no_test_split_beyond_what_keeps_its_images_apart(tmp_path: Path) -> None:
    """Neither masks of it nor its digest; but an image of it among those for training is left out."""
    write_images(tmp_path)
    shutil.rmtree(tmp_path / "masks" / "test")
    for kind, suffix in (("photos", ".jpg"), ("masks", ".png")):
        shutil.copyfile(
            sorted((tmp_path / kind / "train/hat").glob(f"*{suffix}"))[0], tmp_path / kind / "train/hat" / f"zz{suffix}"
        )
    shutil.copyfile(tmp_path / "photos/train/hat/zz.jpg", tmp_path / "photos/test/hat/zz.jpg")
    done = bgsweep("pretrain", "mine.yaml", *TINY, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "photos/train: 2 of 17 images left out, since photos/test has them too" in done.stderr
    import mlflow

    run = mlflow.MlflowClient(json.loads(done.stdout)["tracking_uri"]).get_run(json.loads(done.stdout)["run_id"])
    contexts = {tag.value for entry in run.inputs.dataset_inputs for tag in entry.tags}
    assert contexts == {"train", "validation"}

    done = bgsweep("pretrain", "mine.yaml", *TINY, "data.test=elsewhere", folder=tmp_path)
    assert done.returncode == 0 and "without a look at the test split: " in done.stderr, done.stderr


def test_a_model_is_not_evaluated_on_images_that_it_was_trained_on(tmp_path: Path) -> None:
    write_images(tmp_path)
    done = bgsweep("pretrain", "mine.yaml", *TINY, "--json", folder=tmp_path)
    checkpoint = json.loads(done.stdout)["checkpoint"]
    for test, code in (("train", 2), ("test", 0)):
        train = {"train": "validation", "test": "train"}[test]
        (tmp_path / "suite.yaml").write_text(f"data: {{images: photos, train: {train}, test: {test}}}\nsize: 24\n")
        done = bgsweep("evaluate", checkpoint, "--suite", "knn", "--data", "suite.yaml", folder=tmp_path)
        assert done.returncode == code, done.stderr
        said = "16 of the 16 test images of photos/train were trained on by"
        assert (said in done.stderr) is (code == 2), done.stderr
