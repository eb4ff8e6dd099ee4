"""docs/data-formats.md: its script, and the commands that it says take a file in place of a folder of images."""

import json
import re
from pathlib import Path

import pytest
import yaml

from bgsweep.config.columns import Columns
from bgsweep.data.datasets.formats import open_listing
from tests.command import bgsweep
from tests.forms import FORMS
from tests.inputs import YAML, write_images

PAGE = Path(__file__).parents[2] / "docs" / "data-formats.md"


def test_the_script_writes_a_set_of_torchvision_as_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(script, str(PAGE), "exec"), {})
    found = open_listing("fake/train.csv")
    assert found is not None and len(found.names) == 20 and found.classes == ["0", "1"]


def test_every_key_of_columns_is_told() -> None:
    for key in Columns.model_fields:
        assert f"`columns.{key}`" in PAGE.read_text(encoding="utf-8")


def test_commands_take_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    write_images(tmp_path)
    FORMS["csv"](tmp_path)
    listed = yaml.safe_load(YAML)
    listed["experiment"]["data"] |= {"images": "all.csv", "masks": "included"}
    (tmp_path / "listed.yaml").write_text(yaml.safe_dump(listed))
    found = {}
    for command in (
        "masks make all.csv --out made --method mbd --workers 1",
        "masks show all.csv made --out shown.png --second none",
        "pack all.csv included --out images.pack --columns image=path",
        "new my.yaml --images all.csv --for laptop",
        "doctor listed.yaml",
        "preview listed.yaml --images 2",
        "pretrain listed.yaml",
    ):
        done = bgsweep(*command.split(), "--json", folder=tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        found[command.split()[0]] = json.loads(done.stdout.splitlines()[-1])
    made = sorted(path.relative_to(tmp_path / "made") for path in (tmp_path / "made").rglob("*.png"))
    assert len(made) == 32 and str(made[0]).startswith("test/photos/test/dress/")
    assert yaml.safe_load((tmp_path / "my.yaml").read_text())["experiment"]["data"]["masks"] == "included"
    checkpoint = next(tmp_path.glob("bgsweep_runs/pretrain/*/state.pt"))
    done = bgsweep("evaluate", checkpoint, "--suite", "knn", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    moved = bgsweep("pretrain", "listed.yaml", "data.images=images.csv", folder=tmp_path)
    assert moved.returncode == 2 and "error: images.csv: no such file" in moved.stderr
    (tmp_path / "all.csv").rename(tmp_path / "images.csv")
    again = bgsweep("pretrain", "listed.yaml", "data.images=images.csv", folder=tmp_path)
    assert again.returncode == 0 and "goes on after 1 epoch and 0 steps" in again.stderr, again.stderr
