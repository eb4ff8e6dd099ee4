"""Situations that people bring: one row each, run as a stranger would run it.

A row says how its input is made in an empty folder, which command runs there, how it ends and what it says. Inputs are
made from the embedded sample, so that rows run everywhere; `case` takes a folder of ``../shared/cases`` instead and is
skipped where that is absent. No row may end in a traceback or let a library speak for itself.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from bgsweep.tracking import Tracker, tracking_uri
from tests import inputs
from tests.command import bgsweep
from tests.inputs import case

# What libraries print when nobody has silenced them: OpenCV, libpng, libtiff, Python's own warnings.
RAW = re.compile(r"^Traceback|\[ (WARN|ERROR):|lib(png|tiff|jpeg)|TIFF\w+:|^\S+Warning: ", re.M)


class Situation(NamedTuple):
    """One row of the table.

    Attributes:
        id: name of the test.
        make: makes the input in an empty folder.
        command: words after `bgsweep`; ``--store`` is added to commands that take one.
        code: exit code.
        says: pattern that is searched for in all that the command prints.
        never: pattern that must not be found in it.
    """

    id: str
    make: Callable[[Path], None]
    command: str
    code: int
    says: str
    never: str = r"(?!)"


IMAGES = [
    Situation("nothing wrong", inputs.photographs, "pretrain mine.yaml", 0, r"epoch 1 .* unreadable 0 "),
    Situation("case base", case("base"), "pretrain base/mine.yaml", 0, r"epoch 1 .* unreadable 0 "),
]

# Files, keys and stores of a sweep.
SWEEPS: list[Situation] = []

TABLE = IMAGES + SWEEPS


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that has been opened once: to make one takes seconds, to copy one nothing."""
    store = tmp_path_factory.mktemp("situations") / "store"
    with Tracker(tracking_uri(store)) as tracker:
        assert tracker.experiment_id
    return store


@pytest.mark.parametrize("row", TABLE, ids=[row.id for row in TABLE])
def test_situation(row: Situation, tmp_path: Path, empty_store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    row.make(tmp_path)
    words = row.command.split()
    if words[0] in ("pretrain", "sweep", "evaluate", "doctor"):
        shutil.copytree(empty_store, tmp_path / "store")
        words += ["--store", "store"]
    ended = bgsweep(*words, folder=tmp_path)
    raw = capfd.readouterr()
    told = ended.stdout + ended.stderr + raw.out + raw.err
    assert ended.returncode == row.code, told
    assert re.search(row.says, told), told
    for pattern in (RAW, re.compile(row.never)):
        assert not pattern.search(told), told
    if row.code:
        assert len(re.findall("^error: ", told, re.M)) == 1, told
