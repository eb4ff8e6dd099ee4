"""Exported encoders, loaded as their model cards say, without bgsweep's own loaders."""

import contextlib
import json
import shutil
import sys
from math import hypot
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.stats import binomtest
from torch import nn

import bgsweep as bg
from bgsweep.cli.main import parse
from bgsweep.config import Experiment, SweepConfig, load
from bgsweep.models import ImageEncoder
from bgsweep.tracking import Tracker, tracking_uri
from bgsweep.tracking.encoders import load_model
from bgsweep.training import save_checkpoint
from bgsweep.training.build import initial_method
from bgsweep.training.checkpoint import load_trained
from bgsweep.training.initial_weights import initial_weights
from bgsweep.workflows.export import FORMATS
from tests.command import bgsweep
from tests.compat.test_store import DIGESTS, unpack

TINY = Path(__file__).parents[1] / "tiny.yaml"
RESNET18 = ("encoder.name=resnet18", "encoder.stem=imagenet", "encoder.width=64", "views.size=32")


def write_checkpoint(folder: Path, *overrides: str) -> ImageEncoder:
    """A checkpoint of an encoder whose BatchNorm has statistics that training would have left."""
    experiment = load(TINY, overrides).experiment
    method = initial_method(experiment, 10)
    for module in method.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    state = {"experiment": experiment.model_dump(mode="json"), "classes": 10, "method": method.state_dict()}
    save_checkpoint(folder / "state.pt", {**state, "metrics": {"loss": 1.0, "knn_top1": 0.25}})
    return load_trained(folder).encoder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_checkpoint(folder, *RESNET18)
    return folder


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("narrow")
    write_checkpoint(folder)
    return folder


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose `store` has a sweep of the first version, with a registered champion."""
    return unpack(tmp_path_factory.mktemp("earlier"))


def exported(model: object, to: str, folder: Path, *words: object) -> dict[str, Any]:
    done = bgsweep("export", model, "--to", to, "out", *words, "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["files"] == sorted(path.name for path in (folder / "out").iterdir())
    return found


def followed(found: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The names that the card's lines define, run in the exported folder."""
    card = (folder / "out" / "README.md").read_text()
    assert "\n".join(found["load"]) in card
    names: dict[str, Any] = {}
    with contextlib.chdir(folder / "out"):
        exec("\n".join(found["load"]), names)
    return names


@pytest.mark.parametrize("to", ["torchvision", "timm", "hf", "safetensors"])
def test_the_lines_of_the_card_load_the_encoder(to: str, run: Path, tmp_path: Path) -> None:
    found = exported(run, to, tmp_path)
    network, encoder = followed(found, tmp_path)["network"].eval(), load_trained(run).encoder
    about = json.loads((tmp_path / "out" / "encoder.json").read_text())
    given = about["preprocessing"]
    assert (given["size"], given["resize"], about["features"]) == (32, 37, 512)
    images = torch.rand(3, 3, 40, 48)
    mean, std = (torch.tensor(given[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        theirs = network(images if given["normalized_by_the_network"] else (images - mean) / std)
        torch.testing.assert_close(theirs, encoder(images), rtol=0, atol=1e-4)
    assert found["checked"].startswith("holds" if to == "safetensors" else "features equal the encoder's within 0.0001")


@pytest.mark.parametrize("to", ["torchvision", "timm", "hf", "safetensors"])
def test_bgsweep_reads_what_it_has_exported_and_exports_it_again(to: str, run: Path, tmp_path: Path) -> None:
    first, images = exported(run, to, tmp_path), torch.rand(2, 3, 32, 32)
    loaded, encoder = bg.load(tmp_path / "out", store=tmp_path), load_trained(run).encoder
    assert loaded.size == 32 and loaded.origin["network"] == "resnet18" and loaded.origin["method"] == "moco_v2"
    assert torch.equal(loaded(images), encoder(images))
    (tmp_path / "again").mkdir()
    done = bgsweep("export", "out", "--to", "safetensors", "again", "--json", folder=tmp_path)
    assert json.loads(done.stdout)["lineage"] == first["lineage"] and first["lineage"]["metrics"]
    about = [json.loads((tmp_path / name / "encoder.json").read_text()) for name in ("out", "again")]
    assert about[0]["experiment"] == about[1]["experiment"]
    assert about[1]["preprocessing"]["normalized_by_the_network"] is True
    experiment = load(TINY, [*RESNET18, f"encoder.weights={tmp_path / 'out'}"]).experiment
    start = initial_weights(experiment)
    assert all(torch.equal(start[key], value) for key, value in encoder.state_dict().items())


def test_bgsweep_reads_a_transformer_under_timms_names(tmp_path: Path) -> None:
    encoder = write_checkpoint(tmp_path / "run", "encoder={name: vit_s_16}", "views.size=32")
    exported(tmp_path / "run", "timm", tmp_path)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(bg.load(tmp_path / "out", store=tmp_path)(images), encoder(images))


def test_an_exported_folder_is_evaluated(narrow: Path, tmp_path: Path) -> None:
    exported(narrow, "safetensors", tmp_path)
    suite = {"data": {"images": "sample"}, "size": 16, "evaluate": {"knn": {"k": 5}}}
    found, trained = (bg.evaluate(each, "knn", data=suite, store=tmp_path) for each in (tmp_path / "out", narrow))
    assert found["results"] == trained["results"] and found["results"]["knn"]["values"]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("encoder.json", "out: not a folder that `bgsweep export` wrote, or damaged (Expecting value"),
        ("encoder.safetensors", "encoder.safetensors: "),
        ("more.pth", "out: 2 files of weights beside encoder.json, not one; export again"),
        ("encoder.onnx", "out/encoder.onnx: not a network that ONNX Runtime can load"),
    ],
)
def test_a_damaged_folder_is_one_line(damage: str, told: str, narrow: Path, tmp_path: Path) -> None:
    exported(narrow, "safetensors", tmp_path)
    (tmp_path / "out" / damage).write_bytes(b"damaged")
    done = bgsweep("evaluate", "out", "--suite", "knn", "--store", "none", folder=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and told in done.stderr, done.stderr


def test_a_transformer_of_timm_at_a_size_of_its_own(tmp_path: Path) -> None:
    encoder = write_checkpoint(tmp_path / "run", "encoder={name: 'timm:test_vit'}", "views.size=48")
    network = followed(exported(tmp_path / "run", "hf", tmp_path), tmp_path)["network"].eval()
    assert network.patch_embed.img_size == (48, 48)
    for side in (48, 64):
        images = torch.rand(2, 3, side, side)
        with torch.inference_mode():
            torch.testing.assert_close(network((images - encoder.mean) / encoder.std), encoder(images))


def test_a_folder_for_hugging_face_says_how_images_are_given(run: Path, tmp_path: Path) -> None:
    import timm.data

    exported(run, "hf", tmp_path)
    network = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    config = timm.data.resolve_model_data_config(network)
    assert (list(config["input_size"]), config["crop_pct"]) == ([3, 32, 32], 0.875)
    assert (list(config["mean"]), list(config["std"])) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    other = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True, num_classes=7)
    assert other.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    front = (tmp_path / "out" / "README.md").read_text().split("---\n")[1]
    assert "library_name: timm\npipeline_tag: image-feature-extraction\n" in front


def test_onnx_takes_any_number_of_images_of_any_size(narrow: Path, tmp_path: Path) -> None:
    found = exported(narrow, "onnx", tmp_path)
    assert (
        found["checked"]
        == "features equal the encoder's within 0.0001 in ONNX Runtime; any number of images of any size"
    )
    assert followed(found, tmp_path)["features"].shape == (1, 32)
    session = onnxruntime.InferenceSession(tmp_path / "out" / "encoder.onnx")
    encoder = load_trained(narrow).encoder
    for shape in ((1, 3, 16, 16), (5, 3, 16, 16), (2, 3, 40, 24)):
        images = torch.rand(shape)
        with torch.inference_mode():
            ours = encoder(images).numpy()
        np.testing.assert_allclose(session.run(None, {"images": images.numpy()})[0], ours, rtol=0, atol=1e-4)
        for name in ("out", "onnx:out/encoder.onnx"):
            with contextlib.chdir(tmp_path):
                again = bg.load(name, store=tmp_path / "store")(images)
            np.testing.assert_allclose(again, ours, rtol=0, atol=1e-4)
    model = onnx.load(tmp_path / "out" / "encoder.onnx")
    onnx.checker.check_model(model)
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(about["preprocessing"])["normalized_by_the_network"] is True
    assert [one.dim_param for one in model.graph.input[0].type.tensor_type.shape.dim] == [
        "batch",
        "",
        "height",
        "width",
    ]


def test_onnx_of_a_network_made_for_one_size(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run", "encoder={name: 'timm:test_coatnet'}", "views.size=64")
    assert exported(tmp_path / "run", "onnx", tmp_path)["checked"].endswith("; any number of images of 64 px")
    axes = onnx.load(tmp_path / "out" / "encoder.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [axis.dim_param or axis.dim_value for axis in axes] == ["batch", 3, 64, 64]


def test_an_encoder_in_onnx_leaves_in_no_format(tmp_path: Path) -> None:
    """One of a fixed size of images, and any: neither has weights that a format could hold."""
    write_checkpoint(tmp_path / "run", "encoder={name: vit_s_16}", "views.size=32")
    exported(tmp_path / "run", "onnx", tmp_path)
    for model in (str(tmp_path / "out"), f"onnx:{tmp_path / 'out' / 'encoder.onnx'}"):
        for to in FORMATS:
            with pytest.raises(bg.UserError, match="encoders in ONNX go into no other format; copy the file, or"):
                bg.export(model, to, tmp_path / "again", store=tmp_path)
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("to", ["torchvision", "timm", "hf", "safetensors"])
def test_a_model_from_a_folder_of_hugging_face_loads_again_and_tells_no_path(
    to: str, run: Path, tmp_path: Path
) -> None:
    exported(run, "hf", tmp_path)
    folder = (tmp_path / "out").rename(tmp_path / "published")
    exported(f"hf:{folder}", to, tmp_path)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(bg.load(tmp_path / "out", store=tmp_path)(images), load_trained(run).encoder(images))
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in (tmp_path / "out").iterdir())


def test_a_model_of_hugging_face_with_layers_of_its_own_leaves_as_onnx_alone(tmp_path: Path) -> None:
    options = {"stem_width": 8, "stem_type": "deep"}
    network: Any = timm.create_model("resnet18", num_classes=0, **options)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    described = {"architecture": "resnet18", "num_classes": 0, "model_args": options}
    (tmp_path / "config.json").write_text(json.dumps({**described, "pretrained_cfg": {"num_classes": 0}}))
    for to in FORMATS.keys() - {"onnx"}:
        with pytest.raises(bg.UserError, match="timm builds no network by name that computes the same; use --to onnx"):
            bg.export(f"hf:{tmp_path}", to, tmp_path / "out", store=tmp_path)
    found = bg.export(f"hf:{tmp_path}", "onnx", tmp_path / "out", store=tmp_path)
    about = json.loads((tmp_path / "out" / "encoder.json").read_text())
    assert found["checked"].startswith("features equal") and about["encoder"]["name"] == f"hf:{tmp_path.name}"


def test_a_registered_champion_leaves_with_its_lineage_and_starts_another_run(earlier: Path, tmp_path: Path) -> None:
    store = earlier / "store"
    found = exported("models:/bgsweep-encoder@champion", "safetensors", tmp_path, "--store", store)
    lineage = found["lineage"]
    assert (lineage["digest"], lineage["sweep"], lineage["trial"]) == (DIGESTS["t00"], "tiny-old", "t00")
    assert lineage["registered"] == "models:/bgsweep-encoder/1" and len(lineage["run_id"]) == 32
    assert {one["name"] for one in lineage["metrics"]} >= {"test/knn/top1", "test/linear/bg_gap"}
    card = (tmp_path / "out" / "README.md").read_text()
    for text in (f"`{DIGESTS['t00']}`", "`tiny-old`", lineage["run_id"], "Registered: no version of", "## License"):
        assert text in card
    assert "BG_RM with probability" not in card and "| background augmentations | none |" in card  # the baseline won
    assert str(earlier) not in "".join(path.read_text() for path in (tmp_path / "out").glob("*.[jm][sd]*"))
    with safe_open(tmp_path / "out" / "encoder.safetensors", "pt") as file:
        told = file.metadata()
    assert json.loads(told["encoder"])["name"] == "resnet10" and json.loads(told["lineage"]) == lineage
    loaded = load_model("models:/bgsweep-encoder@champion", 16, store)
    assert isinstance(loaded.experiment, Experiment)
    start = initial_weights(loaded.experiment.with_values({"encoder.weights": str(tmp_path / "out")}))
    assert all(torch.equal(start[key], value) for key, value in loaded.encoder.state_dict().items())


def test_a_checkpoints_run_is_found_and_its_values_have_intervals(narrow: Path, tmp_path: Path) -> None:
    experiment, accuracies = load_trained(narrow).experiment, {"top1": 0.5, "mixed_same": 0.6, "mixed_rand": 0.4}
    with Tracker(tracking_uri(tmp_path / "store")) as tracker:
        for name in ("other", "study"):
            parent = tracker.sweep_run(name, SweepConfig(experiment=experiment))
            trial = tracker.trial_run(parent, "t07", experiment)
            tracker.log_dataset(trial, "test", "photos/test", {"images": "ab12", "masks": "cd34"}, 200)
            values = {f"test/knn/{key}": value for key, value in accuracies.items()}
            tracker.log_metrics(trial, 3, {**values, "test/knn/bg_gap": 0.2, "test/imagenet9/original": 0.3})
    inside = tmp_path / "store" / "sweeps" / "other" / "t07"
    shutil.copytree(narrow, inside)
    lineage = exported(inside, "safetensors", tmp_path)["lineage"]
    assert (lineage["sweep"], lineage["trial"], lineage["digest"]) == ("other", "t07", experiment.digest)
    assert lineage["bgsweep"] == bg.__version__
    assert lineage["images"]["test"] == {"name": "photos/test", "count": 200, "digest": "ab12"}
    rows = [line.split(" | ") for line in (tmp_path / "out" / "README.md").read_text().splitlines()]
    shown = {row[0].strip("| `"): row[1:] for row in rows if len(row) == 4}
    same, rand, top1 = (binomtest(hits, 200).proportion_ci(method="wilson") for hits in (120, 80, 100))
    assert shown["test/knn/top1"] == ["0.5000", f"[{top1.low:.4f}, {top1.high:.4f}]", "200 |"]
    low, high = (0.2 - hypot(0.6 - same.low, rand.high - 0.4), 0.2 + hypot(same.high - 0.6, 0.4 - rand.low))
    assert shown["test/knn/bg_gap"] == ["0.2000", f"[{low:.4f}, {high:.4f}]", "200 |"], "Newcombe 1998, method 10"
    assert shown["test/imagenet9/original"] == ["0.3000", "", "200 |"]


def test_a_checkpoint_alone_has_the_values_of_its_training(run: Path, tmp_path: Path) -> None:
    found = bg.export(run, "safetensors", tmp_path / "out", store=tmp_path / "none")
    assert found["lineage"]["metrics"] == [{"name": "validation/knn/top1", "value": 0.25}]
    assert "run_id" not in found["lineage"] and not (tmp_path / "none").exists()
    assert "Measured on validation images only" in (tmp_path / "out" / "README.md").read_text()


def test_a_checkpoint_at_a_uri_and_weights_of_others(run: Path, tmp_path: Path) -> None:
    encoder = load_trained(run).encoder
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(load_model(run.as_uri(), 32, tmp_path).encoder(images), encoder(images))
    torch.save(encoder.backbone.state_dict(), tmp_path / "moco.pth")
    found = exported(f"resnet18={tmp_path / 'moco.pth'}", "timm", tmp_path)
    with torch.inference_mode():
        torch.testing.assert_close(
            followed(found, tmp_path)["network"].eval()((images - encoder.mean) / encoder.std), encoder(images)
        )
    card = (tmp_path / "out" / "README.md").read_text()
    assert "with the weights of moco.pth" in card and "## Training" not in card


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("export nothing.pt --to onnx out", "nothing.pt: no such checkpoint; give a checkpoint, an MLflow URI"),
        ("export {narrow} --to tochvision out", "--to"),
        ("export {narrow} --to torchvision out", "resnet10, small stem, width 4: torchvision has no network"),
        ("export {narrow} --to hf out", "timm has no network that computes the same; use --to safetensors or onnx"),
        ("export {narrow} --to safetensors .", ".: exists already; name another folder, or remove it"),
        ("export {narrow} --to safetensors there.txt", "there.txt: exists already"),
        ("export {narrow} --to safetensors /proc/out", "/proc/out: cannot be written"),
        ("export {narrow} --to safetensors s3://bucket/out", "only a folder of this machine can be written"),
        pytest.param(f"export {{narrow}} --to onnx {'long' * 99}", "File name too long; name another", id="long"),
        ("export models:/none@champion --to onnx out", "models:/none@champion: MLflow at"),
        ("export {narrow} out", "--to"),
    ],
)
def test_mistakes(words: str, told: str, narrow: Path, tmp_path: Path) -> None:
    (tmp_path / "there.txt").touch()
    done = bgsweep(*words.format(narrow=narrow).split(), folder=tmp_path)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1 and told in done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"there.txt", "bgsweep_runs"}


@pytest.mark.parametrize(
    ("to", "package", "told"),
    [
        ("onnx", "onnxscript", "--to onnx needs the packages onnx and onnxscript: pip install 'bgsweep[onnx]'"),
        ("timm", "timm", "pip install 'timm>=1.0,<2'"),
        ("hf", "timm", "pip install 'timm>=1.0,<2'"),
    ],
)
def test_a_missing_package(
    to: str, package: str, told: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(bg.UserError) as error:
        bg.export(run, to, tmp_path / "out")
    assert told in str(error.value) and not (tmp_path / "out").exists()


def test_the_command_line_knows_every_format() -> None:
    for to in FORMATS:
        assert parse(["export", "model", "--to", to, "folder"]).folder == Path("folder")
    with pytest.raises(bg.UserError, match="--to safetensor: no such format; did you mean `safetensors`"):
        bg.export("model", "safetensor", "folder")
