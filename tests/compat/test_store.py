"""Files of earlier versions stay readable: a sweep's store, a checkpoint, a registered model, a YAML file.

`store.zip` holds a part of what the first version wrote for `bgsweep sweep tiny.yaml --name tiny-old search.trials=2`:
its MLflow database is SQL, and `@FOLDER@` stands for its folder. Never make it again: code that changes a format must
go on reading this one.
"""

import json
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bgsweep.config import load, load_suite, resolve
from bgsweep.tracking.encoders import load_model
from bgsweep.training.seeded_run import start
from tests.command import bgsweep

CHECKPOINT = "sweeps/tiny-old/tune-20261127-080815/t00/checkpoint_000002"
DIGESTS = {"t00": "0e54fb21a7cb0463", "t01": "3274ba3e48af463a"}


def unpack(folder: Path) -> Path:
    with zipfile.ZipFile(Path(__file__).with_name("store.zip")) as archive:
        archive.extractall(folder)
    for path in (folder / "store").rglob("*"):
        if path.suffix in (".sql", ".json", ".jsonl"):
            path.write_text(path.read_text(encoding="utf-8").replace("@FOLDER@", str(folder)), encoding="utf-8")
    with sqlite3.connect(folder / "store" / "mlflow.db") as database:
        database.executescript((folder / "store" / "mlflow.sql").read_text(encoding="utf-8"))
    database.close()
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("earlier"))


def told(folder: Path, *arguments: object) -> Any:
    done = bgsweep(*arguments, "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_yaml_file_has_the_values_that_it_had(folder: Path) -> None:
    was = json.loads((folder / "store/sweeps/tiny-old/sweep.json").read_text(encoding="utf-8"))["file"]["experiment"]
    now = load(folder / "tiny.yaml").experiment.model_dump(mode="json")
    assert {name: {key: now[name][key] for key in was[name]} for name in was if name != "seed"} == {
        name: was[name] for name in was if name != "seed"
    }


def test_an_experiment_has_the_digest_that_it_had(folder: Path) -> None:
    experiment = load(folder / "tiny.yaml").experiment
    baseline = experiment.with_values({"background.remove": 0.0, "background.random": 0.0})
    assert {"t00": baseline.digest, "t01": experiment.digest} == DIGESTS


@pytest.mark.parametrize(
    ("section", "was", "same"),
    [
        ({}, "cd54e56ac2948470", True),
        ({"method": {"name": "byol"}}, "341956a398ed7848", True),
        ({"background": {"swap": 0.2}}, "309f992d6fb595df", False),
        ({"data": {"validation": None}}, "d3b6921d1798e2ad", False),
        ({"data": {"test": None}}, "cb9d6ddf74be99f7", False),
    ],
)
def test_only_what_is_computed_otherwise_has_another_digest(section: dict[str, Any], was: str, same: bool) -> None:
    """BG_Swaps and held-out splits meant something else in the first version, so that its runs cannot go on."""
    assert (resolve({"experiment": section}).experiment.digest == was) == same


def test_status_shows_the_sweep(folder: Path) -> None:
    (sweep,) = told(folder, "status", "tiny-old", "--store", "store")["sweeps"]
    assert (sweep["sweep"], sweep["state"]) == ("tiny-old", "ended")
    assert {trial["id"]: trial["digest"] for trial in sweep["trials"]} == DIGESTS
    assert [round(trial["metrics"]["knn_top1"], 3) for trial in sweep["trials"]] == [0.2, 0.185]


def test_report_draws_the_sweep(folder: Path) -> None:
    page = Path(told(folder, "report", "tiny-old", "--store", "store", "--out", folder / "page.html")["page"])
    text = page.read_text(encoding="utf-8")
    assert "tiny-old" in text and "21.7" in text  # the champion's accuracy on the test images


def test_a_checkpoint_is_resumed(folder: Path) -> None:
    values = ["background.remove=0", "background.random=0"]
    run = start(load(folder / "tiny.yaml", values))
    run.restore(folder / "store" / CHECKPOINT)
    assert run.finished and round(run.metrics["knn_top1"], 3) == 0.2


def test_a_checkpoint_is_evaluated(folder: Path) -> None:
    found = told(folder, "evaluate", folder / "store" / CHECKPOINT / "state.pt", "tiny.yaml", "--store", "new")
    assert found["knn_top1"] == pytest.approx(0.217, abs=0.02)


def test_a_registered_model_loads_in_mlflow_and_in_bgsweep(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder / 'store' / 'mlflow.db'}")
    images = np.random.default_rng(0).random((2, 3, 16, 16), np.float32)
    program = mlflow.pyfunc.load_model("models:/bgsweep-encoder@champion").predict(images)
    loaded = load_model("models:/bgsweep-encoder@champion", 16, folder / "store")
    assert loaded.experiment is not None and loaded.experiment.digest == DIGESTS["t00"]
    with torch.inference_mode():
        np.testing.assert_allclose(loaded.encoder(torch.from_numpy(images)).numpy(), program, rtol=1e-4, atol=1e-5)
    assert {model["name"] for model in told(folder, "models", "--store", "store")["models"]} == {"bgsweep-encoder"}


@pytest.mark.slow
def test_the_end_of_a_sweep_is_run_again(tmp_path: Path) -> None:
    """Its checkpoint, journal and MLflow runs are all that this needs."""
    words = ("sweep", "--resume", "tiny-old", "register.name=other", "--store", "store")
    found = told(unpack(tmp_path), *words)
    assert (found["best"]["trial"], found["model"]["name"]) == ("t00", "other")


def test_a_suites_preprocessing_has_its_earlier_name(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text("pictures: {resize: 36, crop: 32}\n", encoding="utf-8")
    found = load_suite(tmp_path / "suite.yaml").preprocessing
    assert (found.resize, found.crop) == (36, 32)
