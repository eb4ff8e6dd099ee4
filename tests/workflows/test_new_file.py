"""Files to start from: for any images and machine they are valid, and what they name works."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml

from bgsweep.config import load
from bgsweep.config.schema import suite_schema, sweep_schema
from bgsweep.errors import UserError
from bgsweep.workflows.new_file import SCHEMA, Found, Machine, compose, look, recipes
from tests.command import bgsweep
from tests.inputs import write_images

ROOT = Path(__file__).parents[2]
METHODS = recipes()
EXAMPLES = [
    *(path for path in sorted((ROOT / "search_spaces").glob("*.yaml")) if path.stem != "shortcut_study"),
    ROOT / "tests" / "tiny.yaml",
]
"""Files of sweeps; the study's is of another kind."""


def valid(schema: dict[str, Any], text: str) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(yaml.safe_load(text)))


def test_an_installation_without_recipes_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bgsweep.workflows.new_file._RECIPES", tmp_path / "none")
    done = bgsweep("new", "mine.yaml", folder=tmp_path)
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    assert done.stderr.splitlines() == [
        f"error: {tmp_path}/none: no recipes; install bgsweep from a whole checkout, with its search_spaces/"
    ]


@pytest.mark.parametrize("machine", ["laptop", "gpu", "cluster"])
@pytest.mark.parametrize("method", METHODS)
def test_a_file_is_valid_for_any_images(method: str, machine: Machine, tmp_path: Path) -> None:
    data = {"images": "photos", "train": "train", "validation": None, "test": "test"}
    path, schema = tmp_path / "my file.yaml", sweep_schema()
    for count, side, classes in ((9, 40, 2), (700, 300, 1), (50_000, 96, 10), (1_281_167, 375, 1000), (300, 80, 0)):
        for masks in ({}, {"masks": "masks"}):
            text, about = compose(Found({**data, **masks}, count, classes, side, []), method, machine, path)
            path.write_text(text)
            file = load(path)
            experiment = file.experiment
            assert valid(schema, text) and f"{method} on {count} images" in about
            assert experiment.method.name == method and experiment.training.batch_size <= max(4, count // 2)
            assert experiment.views.size <= max(side, 32) and experiment.background.active == bool(masks)
            assert ("background.remove" in file.space.parameters) == bool(masks)
            pair = ["validation/reliance/swap_lidar", "validation/reliance/bg_share"]
            without = pair if masks else ["validation/rotation/top1"]
            assert list(file.search.metrics) == (["knn_top1"] if classes else without)
            assert all(len(line) < 130 for line in text.splitlines())


def test_splits_are_recognised(tmp_path: Path) -> None:
    write_images(tmp_path)
    photos, masks = tmp_path / "photos", str(tmp_path / "masks")
    whole = look(str(photos), masks)
    assert (whole.count, whole.classes) == (16, 2) and 48 <= whole.side <= 106
    assert whole.data | {"images": "", "masks": ""} == {
        "images": "",
        "masks": "",
        "train": "train",
        "validation": "validation",
        "test": "test",
    }
    for below in ("photos", "masks"):
        for old, new in (("validation", "val"), ("train", "Training")):
            (tmp_path / below / old).rename(tmp_path / below / new)
    both = look(str(photos), masks)
    assert both.data["validation"] == "val" and both.data["train"] == "Training"
    for below in ("photos", "masks"):
        (tmp_path / below / "test").rename(tmp_path / below / "unused")
    one = look(str(photos), masks)
    assert (one.data["validation"], one.data["test"]) == (None, "val"), "no search may see the only other split"
    flat = look(str(photos / "Training"), str(tmp_path / "masks" / "Training"))
    assert flat.data["train"] == "." and flat.classes == 2
    loose = look(str(photos / "Training" / "hat"), None)
    assert loose.classes == 0 and "masks" not in loose.data
    with pytest.raises(UserError, match="nowhere"):
        look(str(tmp_path / "nowhere"), None)


def test_editors_accept_what_bgsweep_accepts_and_no_more() -> None:
    schema = sweep_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for path in EXAMPLES:
        assert valid(schema, path.read_text(encoding="utf-8")), path
    for text in (
        "experiment: {method: {name: 'toys.config:ToyConfig', anything: 1}}",
        "search:\nexperiment:",
        "experiment: {data: {dataset: {name: discs, side: 9}}, views: {extra: [{name: posterize, bits: 2}]}}",
        "experiment: {background: {random: {from: 0.4, to: 0.0}}}",
        "evaluate: {metrics: [rankme, {name: lidar, views: 9}, {name: 'toys.config:SpreadConfig', power: 2}]}",
        "space: {optimizer.lr: [{uniform: [0, 1], when: {method.name: byol}}, {choice: [1]}]}",
    ):
        assert valid(schema, text), text
    for text in (
        "evaluate: {metrics: [{name: lidar, view: 9}]}",
        "experimen: {}",
        "experiment: {method: {name: byol, queue_size: 3}}",
        "search: {trials: many}",
    ):
        assert not valid(schema, text), text
    assert valid(suite_schema(), "data: {images: photos}\nplugins: {toy: {power: 2}}")
    assert not valid(suite_schema(), "size: large")


def test_the_schema_is_printed_and_written(tmp_path: Path) -> None:
    printed = bgsweep("schema", folder=tmp_path)
    assert bgsweep("schema", "--out", "x.json", folder=tmp_path).stdout == "wrote x.json\n"
    assert json.loads(printed.stdout) == json.loads((tmp_path / "x.json").read_text()) == sweep_schema()
    assert "SuiteConfig" in json.loads(bgsweep("schema", "--suite", folder=tmp_path).stdout)["title"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("there.yaml", "there.yaml: exists already; name another file, or remove it"),
        ("x.yaml --method biol", "--method: no recipe for 'biol'; did you mean `byol`? known: moco_v2, byol"),
        ("x.yaml --for gpu", "new: --masks, --columns and --for are for images of your own; name them by --images"),
        ("x.yaml --images nowhere", "nowhere"),
    ],
)
def test_mistakes(tmp_path: Path, words: str, error: str) -> None:
    (tmp_path / "there.yaml").write_text("experiment: {}\n")
    done = bgsweep("new", *shlex.split(words), folder=tmp_path)
    assert done.returncode == 2 and error in done.stderr
    assert not (tmp_path / "x.yaml").exists()


@pytest.mark.parametrize("method", [None, *METHODS])
def test_the_bundled_images_need_no_folder(tmp_path: Path, method: str | None) -> None:
    option = ["--method", method] if method else []
    done = bgsweep("new", "mine.yaml", *option, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "mine.yaml").read_text()
    recipe = ROOT / "search_spaces" / (f"{method}_small.yaml" if method else "quickstart.yaml")
    assert text.splitlines()[0] == f"# yaml-language-server: $schema={SCHEMA}" and (tmp_path / SCHEMA).exists()
    assert load(tmp_path / "mine.yaml").experiment.digest == load(recipe).experiment.digest
    assert "bgsweep sweep mine.yaml" in text and "bgsweep sweep mine.yaml" in done.stdout
    assert "search_spaces" not in text


@pytest.mark.faults  # for its time
def test_a_new_file_is_checked_planned_and_searched(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "mine.yaml").unlink()
    words = shlex.split("new mine.yaml --images photos --masks masks --method byol --for laptop")
    done = bgsweep(*words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "byol on 16 images (2 classes" in done.stdout
    for command in (
        "doctor mine.yaml",
        "preview mine.yaml --images 2",
        "plan mine.yaml --gpus 2 --epoch-seconds 1",
        "sweep mine.yaml training.epochs=2 search.trials=2 search.grace_epochs=1",
    ):
        done = bgsweep(*shlex.split(command), folder=tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert "registered     mine version 1, alias champion" in done.stdout


BLACK = """
assert "bgsweep" not in sys.modules
given = json.load(open("encoder.json"))["preprocessing"]
mean, std = (torch.tensor(given[name]).view(3, 1, 1) for name in ("mean", "std"))
black = (torch.zeros(1, 3, given["size"], given["size"]) - mean) / std
print(json.dumps((features if "session" in globals() else network.eval()(black))[0].tolist()))
"""


@pytest.mark.faults
def test_a_wheel_leads_from_an_empty_folder_to_an_encoder_for_other_programs(tmp_path: Path) -> None:
    """From the wheel alone, beside the packages that are installed here; no file is written by hand."""
    source = tmp_path / "source"  # a build leaves files behind
    for name in ("bgsweep", "search_spaces"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "wheel", str(source), *offline, "--wheel-dir", str(tmp_path / "made")], check=True)
    (wheel,) = (tmp_path / "made").glob("bgsweep-*.whl")
    there, empty = tmp_path / "there", tmp_path / "empty"
    subprocess.run([*pip, "install", str(wheel), "--no-deps", "--no-index", "--target", str(there)], check=True)
    empty.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(there)}

    def python(*words: str) -> str:
        done = subprocess.run([sys.executable, *words], cwd=empty, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert python("-c", "import bgsweep; print(bgsweep.__file__)").startswith(str(there))
    python("-m", "bgsweep.cli", "new", "quickstart.yaml")
    short = ["training.epochs=1", "search.trials=2", "evaluate.repeats=1", "search.grace_epochs=1"]
    # The quickstart's own network is narrower than any of other libraries.
    network = ["encoder.name=resnet18", "encoder.width=64", "encoder.stem=imagenet"]
    told = python("-m", "bgsweep.cli", "sweep", "quickstart.yaml", *short, *network)
    assert "registered     bgsweep-quickstart version 1, alias champion" in told
    champion = ["-m", "bgsweep.cli", "export", "models:/bgsweep-quickstart@champion", "--json", "--to"]
    found = []
    for to in ("onnx", "torchvision", "hf"):
        load = json.loads(python(*champion, to, to).splitlines()[-1])["load"]
        # What the model card says, for a black image, in a process that does not load bgsweep.
        program = [
            f"import json, os, sys, torch; os.chdir({to!r})",
            *load,
            BLACK,
            "assert 'bgsweep' not in sys.modules",
        ]
        found.append(json.loads(python("-c", "\n".join(program)).splitlines()[-1]))
    assert len(found[0]) == 512 and any(found[0])
    for features in found[1:]:
        np.testing.assert_allclose(features, found[0], rtol=0, atol=1e-3)
