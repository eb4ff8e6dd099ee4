"""The commands in the headers of search_spaces/*.yaml run as they stand there, on as little as can be trained."""

import re
import shlex
from pathlib import Path

import pytest

from bgsweep.cli.main import parse
from bgsweep.config import load
from bgsweep.data import open_splits
from bgsweep.evaluation import check
from tests.command import bgsweep
from tests.docs.test_commands import ROOT, write_sample

pytestmark = pytest.mark.slow
FILES = sorted((ROOT / "search_spaces").glob("*.yaml"))
TINY = {
    "": "views.size=16 encoder={name: resnet10, width: 4, stem: small} training.epochs=1 training.batch_size=16 "
    "workers.count=1 workers.device=cpu data.loader_workers=0 data.resize=24 data.holdout=0.2",
    "moco_v2": "method.queue_size=16 method.hidden_dim=8 method.embedding_dim=8 method.split_bn=1",
    "byol": "method.hidden_dim=8 method.embedding_dim=8",
    "swav": "method.prototypes=8 method.hidden_dim=8 method.embedding_dim=8 views.small_crops=1 views.small_size=16",
    "simclr": "method.hidden_dim=8 method.embedding_dim=8",
    "vicreg": "method.hidden_dim=8 method.embedding_dim=8",
    "dino": "method.prototypes=8 method.hidden_dim=8 method.embedding_dim=8 views.small_crops=1 views.small_size=16",
    "supervised": "",
}
"""Overrides that make any file, and a method's, a matter of seconds."""


def commands(path: Path) -> list[list[str]]:
    """The words of the commands in a file's header."""
    header = re.sub(r"\\\n#", "", path.read_text(encoding="utf-8"))
    found = re.findall(r"^# (?:Command:)? +bgsweep (.*?)(?: {3,}\(.*)?$", header, re.MULTILINE)
    return [shlex.split(each) for each in found]


def tiny(path: Path) -> list[str]:
    method = next((name for name in TINY if name and path.stem.startswith(name)), "moco_v2")
    return re.findall(r"\S+=(?:\{.*?\}|\S+)", f"{TINY['']} {TINY[method]}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("headers")
    write_sample(made)
    (made / "images" / "test").rename(made / "images" / "val")
    (made / "truth" / "test").rename(made / "truth" / "val")
    return made


RUNS = [(path, words) for path in FILES for words in commands(path)]


def test_every_file_says_how_it_is_run() -> None:
    assert {path for path, _ in RUNS} == {path for path in FILES if path.stem not in ("quickstart", "shortcut_study")}
    assert {words[0] for _, words in RUNS} == {"pretrain", "sweep"}


@pytest.mark.parametrize(("path", "words"), RUNS, ids=[f"{words[0]} {path.stem}" for path, words in RUNS])
def test_command_of_a_header(path: Path, words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"data.images=DIR": "data.images=images", "data.masks=DIR": "data.masks=truth"}
    words = [places.get(word, word) for word in words]
    words[1] = str(ROOT / words[1])
    if words[0] == "pretrain":
        done = bgsweep(*words, *tiny(path), "--store", folder / path.stem, folder=folder)
        assert done.returncode == 0, done.stderr
        return
    monkeypatch.chdir(folder)
    options = parse(words)
    file = load(options.file, options.overrides)
    assert file.space.parameters and file.experiment.data.has_masks
    check(open_splits(file.experiment.data), file.evaluate)
