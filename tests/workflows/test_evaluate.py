"""`bgsweep evaluate --suite` on every kind of model, and what it says of mistakes."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torchvision import models

from bgsweep.cli.evaluate import show_comparison
from bgsweep.cli.main import main
from bgsweep.config import SuiteConfig, load, load_suite
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.evaluation.evaluator import PerImageMetric, Result
from bgsweep.tracking import Tracker, tracking_uri
from bgsweep.tracking.encoders import load_model
from bgsweep.tracking.models import log_encoder
from bgsweep.tracking.registry import add_version, give_alias
from bgsweep.training.run import Run
from bgsweep.workflows.compare import rows as rows_of
from bgsweep.workflows.evaluate import measure
from tests.inputs import write_images

TINY = Path(__file__).parents[1] / "tiny.yaml"
SUITE = """
data: {images: sample, resize: 40, cache: true}
size: 32
evaluate: {linear: {epochs: 5}}
device: cpu
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, the same encoder in an MLflow registry, weights of torchvision, a suite's file."""
    folder = tmp_path_factory.mktemp("assess")
    file = load(TINY)
    run = Run(file)
    run.save(folder / "checkpoint")
    with Tracker(tracking_uri(folder / "store")) as tracker:
        parent = tracker.pretrain_run("one", file)
        description = file.experiment.model_dump(mode="json")
        model = log_encoder(tracker, parent, run.training.method.encoder, file.experiment.views.size, description)
        name, alias = file.register_as.name, file.register_as.alias
        give_alias(tracker, name, add_version(tracker, parent, model, name, {}), alias)
    torch.manual_seed(0)
    torch.save({f"module.{key}": value for key, value in models.resnet18().state_dict().items()}, folder / "r18.pth")
    (folder / "suite.yaml").write_text(SUITE, encoding="utf-8")
    return folder


def evaluate(place: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code = main(["evaluate", *arguments, "--store", str(place / "store"), "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and "Traceback" not in err
    return err


def test_a_checkpoint_and_its_registered_model_have_the_same_numbers(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = evaluate(place, capsys, str(place / "checkpoint"), "--suite", "knn,linear")
    registered = evaluate(place, capsys, "models:/bgsweep-encoder@champion", "--suite", "knn,linear")
    assert registered["results"] == checkpoint["results"]
    assert checkpoint["origin"]["method"] == "moco_v2"
    with Tracker(registered["tracking_uri"]) as tracker:
        run = tracker.client.get_run(registered["run_id"])
        version = tracker.client.get_model_version_by_alias("bgsweep-encoder", "champion")
        logged = {one.key: one for one in tracker.client.get_logged_model(version.source.rpartition("/")[2]).metrics}
        files = {one.path for one in tracker.client.list_artifacts(registered["run_id"])}
    assert run.data.metrics["test/knn/top1"] == run.data.metrics["knn/knn_top1"]
    assert run.data.metrics["knn/knn_top1"] == registered["results"]["knn"]["values"]["knn_top1"]
    assert logged["knn/knn_top1"].dataset_name == "sample/test" and logged["knn/knn_top1"].dataset_digest
    assert run.data.tags["bgsweep.kind"] == "evaluation" and "evaluation.json" in files
    found = checkpoint["results"]
    assert found["knn"]["protocol"]["knn"] == "k 20, temperature 0.07, cosine"
    assert found["linear"]["protocol"]["linear_lr"] > 0
    assert found["knn"]["values"].keys() == {"knn_top1", "knn_mean_per_class"}


def test_weights_of_others_are_judged_alike(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = "knn_lightly,knn_dino,backgrounds"
    result = evaluate(
        place, capsys, f"resnet18={place / 'r18.pth'}", "--suite", names, "--data", str(place / "suite.yaml")
    )
    found = result["results"]
    assert [found[name]["protocol"]["knn"] for name in ("knn_lightly", "knn_dino")] == [
        "k 200, temperature 0.1, cosine",
        "k 20, temperature 0.07, cosine",
    ]
    with Tracker(result["tracking_uri"]) as tracker:
        assert "variants.png" in {one.path for one in tracker.client.list_artifacts(result["run_id"])}
    values = found["backgrounds"]["values"]
    assert values["knn/bg_gap"] == pytest.approx(values["knn/mixed_same"] - values["knn/mixed_rand"])
    assert values["knn/original"] == pytest.approx(found["knn_dino"]["values"]["knn_top1"], abs=0.01)
    assert len(values) == 18


def test_each_number_is_tied_to_the_images_that_it_is_of(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = EmbeddedSample("test")[0].image
    for number, texture in enumerate(("boat", "car"), start=1):
        path = tmp_path / "stimuli" / "cat" / f"cat1-{texture}{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)
    suite = f"{SUITE}pictures: {{resize: 36, crop: 32}}\nsets: {{cue_conflict: {tmp_path / 'stimuli'}}}\n"
    (tmp_path / "suite.yaml").write_text(suite, encoding="utf-8")
    tied: dict[str, tuple[str, str]] = {}
    log_metrics = Tracker.log_metrics

    def watching(self: Tracker, run: str, epoch: int, values: Any, model: Any, dataset: Any, at: int) -> None:
        tied.update(dict.fromkeys(values, dataset))
        log_metrics(self, run, epoch, values, model, dataset, at)

    monkeypatch.setattr(Tracker, "log_metrics", watching)
    weights, data = f"resnet18={place / 'r18.pth'}", str(tmp_path / "suite.yaml")
    result = evaluate(place, capsys, weights, "--suite", "knn,shape_bias", "--data", data)
    assert tied["knn/knn_top1"][0] == "sample/test" and tied["shape_bias/shape_bias"][0] == "shape_bias"
    with Tracker(result["tracking_uri"]) as tracker:
        inputs = tracker.client.get_run(result["run_id"]).inputs.dataset_inputs
    assert {(one.dataset.name, one.dataset.digest) for one in inputs} == set(tied.values())


def test_an_evaluation_leaves_the_encoder_as_it_was(place: Path) -> None:
    """In eval mode, with the statistics of BatchNorm that it came with, even if it is handed in in train mode."""
    loaded = load_model(f"resnet18={place / 'r18.pth'}", 32, place)
    before = {name: value.clone() for name, value in loaded.encoder.state_dict().items()}
    loaded.encoder.train()
    (place / "few.yaml").write_text(f"{SUITE}attacks: {{eps: [1], steps: 2, images: 4}}\n", encoding="utf-8")
    measure(loaded, ["attacks", "knn", "linear", "backgrounds"], load_suite(place / "few.yaml"))
    assert not any(module.training for module in loaded.encoder.modules())
    assert all(torch.equal(before[name], value) for name, value in loaded.encoder.state_dict().items())


def test_the_table_names_every_value(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(place / "checkpoint"), "--suite", "knn", "--store", str(place / "store")]) == 0
    out, err = capsys.readouterr()
    assert "knn_top1" in out and "temperature 0.07" in out
    assert "knn (1 of 1)" in err


def test_all_of_train_is_used_and_no_validation_read(
    place: Path, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, count in (("train", 8), ("test", 4)):
        for name in ("hat", "shoes"):
            (tmp_path / split / name).mkdir(parents=True)
            for path in sorted((shared_data / "clothing10" / "images" / split / name).iterdir())[:count]:
                (tmp_path / split / name / path.name).symlink_to(path)
    (tmp_path / "suite.yaml").write_text(f"data: {{images: {tmp_path}}}\nsize: 32\ndevice: cpu\n", encoding="utf-8")
    data = ["--data", str(tmp_path / "suite.yaml")]
    result = evaluate(place, capsys, str(place / "checkpoint"), "--suite", "knn", *data)
    assert "16 images" in result["results"]["knn"]["protocol"]["train"]
    told = mistake(capsys, "evaluate", f"resnet18={place / 'r18.pth'}", "--suite", "paper", *data)
    lines = told.splitlines()
    assert len(lines) >= 12 and all(": " in line for line in lines)
    assert any(line.startswith("objectnet: sets.objectnet is not set; download objectnet-1.0.zip") for line in lines)


def test_mistakes_are_told_before_anything_runs(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = str(place / "suite.yaml")
    assert "no evaluator 'knnn'; there are: quick, paper" in mistake(capsys, "evaluate", "x", "--suite", "knnn")
    told = mistake(capsys, "evaluate", "x", "--suite", "", "--data", suite)
    assert "--suite: name one or more of: quick" in told
    assert "x: no such checkpoint; give a checkpoint" in mistake(capsys, "evaluate", "x", "--suite", "knn")
    assert "name a --suite" in mistake(capsys, "evaluate", "x")
    told = mistake(capsys, "evaluate", str(place / "r18.pth"), "--suite", "knn", "--data", suite)
    assert f"named with their network: resnet50={place / 'r18.pth'}" in told
    weights = f"resnet18={place / 'r18.pth'}"
    assert "--data: name a YAML file" in mistake(capsys, "evaluate", weights, "--suite", "knn")
    other = tmp_path / "other.yaml"
    other.write_text("data: {images: sample, maks: x}", encoding="utf-8")
    told = mistake(capsys, "evaluate", weights, "--suite", "knn", "--data", str(other))
    assert "data.maks: unknown key; did you mean `masks`?" in told
    other.write_text("sets: {imagenet: x}", encoding="utf-8")
    assert "sets.imagenet: unknown key" in mistake(capsys, "evaluate", weights, "--suite", "knn", "--data", str(other))
    other.write_text("size: 32", encoding="utf-8")
    assert "knn: data: no labelled images" in mistake(capsys, "evaluate", weights, "--data", str(other))
    told = mistake(capsys, "evaluate", "models:/none@champion", "--suite", "knn", "--store", str(place / "store"))
    assert "models:/none@champion: MLflow at" in told


def test_two_models_are_compared_image_by_image(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, checkpoint = f"resnet18={place / 'r18.pth'}", str(place / "checkpoint")
    command = [
        "compare",
        checkpoint,
        weights,
        checkpoint,
        "--suite",
        "knn,backgrounds",
        "--store",
        str(place / "store"),
    ]
    # Eight images of each split: encoding all that come with bgsweep took minutes where many programs ran.
    write_images(tmp_path)
    few = f"{{images: {tmp_path / 'photos'}, masks: {tmp_path / 'masks'}}}"
    (tmp_path / "few.yaml").write_text(
        SUITE.replace("{images: sample, resize: 40, cache: true}", few), encoding="utf-8"
    )
    data = ["--data", str(tmp_path / "few.yaml")]
    assert main([*command, *data, "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    alone = [evaluate(place, capsys, one, "--suite", "knn", *data) for one in (checkpoint, weights)]
    (row,) = [row for row in result["rows"] if row["name"] == "knn_top1"]
    values = [one["results"]["knn"]["values"]["knn_top1"] for one in alone]
    assert row["values"] == [*values, values[0]]
    different, same = row["differences"]
    assert different["value"] == pytest.approx(values[1] - values[0])
    assert different["lower"] < different["value"] < different["upper"]
    assert (same["value"], same["significant"]) == (0, False)
    gap = next(row for row in result["rows"] if row["name"] == "linear/bg_gap")
    assert gap["differences"][0]["lower"] <= gap["differences"][0]["value"] <= gap["differences"][0]["upper"]
    assert main([*command[:3], "--suite", "knn", *data]) == 0
    assert "95 % interval" in capsys.readouterr().out
    assert "name two or more" in mistake(capsys, "compare", checkpoint)


def test_what_has_no_interval_is_shown_as_none_and_is_json() -> None:
    def measured(*values: PerImageMetric) -> list[Result]:
        return [Result("detection", values, {})]

    def one(name: str, value: float, counted: float = 1.0) -> PerImageMetric:
        return PerImageMetric(name, np.array([value]), np.array([counted]))

    first = measured(one("detection_ap", 0.25), one("nothing", 0, 0))
    rows = rows_of(first, [measured(one("detection_ap", 0.5), one("nothing", 0, 0))], SuiteConfig())
    assert rows[0]["values"] == [0.25, 0.5] and rows[1]["values"] == [None, None]
    assert rows[0]["differences"] == [{"value": 0.25, "lower": None, "upper": None, "significant": False}]
    json.dumps(rows, allow_nan=False)
    models = [{"name": name} for name in "ab"]
    shown = show_comparison({"models": models, "rows": rows, "bootstrap": ""})
    assert "+25.0" in shown and "none" in shown
