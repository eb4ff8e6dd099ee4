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

from bgsweep.data import splits
from bgsweep.data.readable import warn_once
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


FINE = r"epoch 1 .* unreadable 0 "
# A warning that names the file, and the count in the epoch's line.
SAID = r"(photos|masks)/train/\S+: (damaged|cannot be read)"
UNREADABLE = rf"(?s){SAID}.*epoch 1 .* unreadable [1-9] "

IMAGES = [
    Situation("nothing wrong", inputs.photographs, "pretrain mine.yaml", 0, r"epoch 1 .* unreadable 0 "),
    Situation("case base", case("base"), "pretrain base/mine.yaml", 0, FINE),
    # Files that are gone or cannot be read: named, counted, passed over.
    Situation("case broken-symlink", case("broken-symlink"), "pretrain broken-symlink/mine.yaml", 0, UNREADABLE),
    Situation(
        "case broken-symlink-mask", case("broken-symlink-mask"), "pretrain broken-symlink-mask/mine.yaml", 0, UNREADABLE
    ),
    *(
        Situation(f"{name}, {command}", make, f"{command} mine.yaml", 0, says)
        for name, make in inputs.LOST_FILES.items()
        for command, says in (
            ("pretrain", UNREADABLE),
            ("doctor", r"-- +train .*1 of the 16 looked at"),
            ("preview", SAID),
        )
    ),
    *(
        Situation(
            f"{name}, pack", make, "pack photos masks --out packed", 0, r"cannot be read, left out .*dress/\w+\.jpg"
        )
        for name, make in inputs.LOST_FILES.items()
    ),
    Situation(
        "image lost, masks",
        inputs.LOST_FILES["link to nowhere"],
        "masks make photos --out made",
        0,
        r"train/dress/\w+\.jpg: .*cannot be read",
    ),
    Situation(
        "link to a folder above",
        inputs.looped,
        "pretrain mine.yaml",
        0,
        r"(?s)it is not followed.*epoch 1 .* unreadable 0 ",
    ),
    # Masks that are not grey of 0 and 255: read right, or refused with the share that is wrong.
    Situation("case mask-rgba-cutout", case("mask-rgba-cutout"), "pretrain mask-rgba-cutout/mine.yaml", 0, FINE),
    Situation("case mask-upper-suffix", case("mask-upper-suffix"), "pretrain mask-upper-suffix/mine.yaml", 0, FINE),
    *(
        Situation(f"case {name}", case(name), f"pretrain {name}/mine.yaml", 2, says)
        for name, says in (
            ("mask-16bit-255", r"masks/train/\S+\.png: 16 bits a pixel, but no level above 255.*20 of the 20 masks"),
            ("mask-multiclass", r"masks/train/\S+\.png: its levels are 0, 1, 2, 3, .*20 of the 20 masks"),
            ("mask-palette-voc", r"masks/train/\S+\.png: has colours \(such as #[0-9a-f]{6}\).*20 of the 20 masks"),
            ("mask-trimap-pets", r"masks/train/\S+\.png: its levels are 1, 2, 3, .*20 of the 20 masks"),
            ("mask-void255", r"masks/train/\S+\.png: its levels are 0, 7, 255 .*20 of the 20 masks"),
            ("mask-jpeg", r"20 of 20 images have no mask, .*dress/\w+\.jpg lies there.* PNG of the same name"),
            (
                "mask-name-suffix",
                r"20 of 20 images have no mask, .*dress/\w+_mask\.png lies there.* PNG of the same name",
            ),
        )
    ),
    Situation(
        "masks of 0 and 1 mixed in",
        inputs.one_mask(inputs.coded_by_one),
        "pretrain mine.yaml",
        2,
        r"foreground is 1;.*1 of the 16",
    ),
    Situation(
        "masks of 0 and 1 mixed in, pack",
        inputs.one_mask(inputs.coded_by_one),
        "pack photos masks --out packed",
        2,
        r"foreground is 1;",
    ),
    Situation(
        "case exif-raw-mask",
        case("exif-raw-mask"),
        "pretrain exif-raw-mask/mine.yaml",
        0,
        r"(?s)EXIF orientation.*turned.*epoch 1 .* unreadable 0 ",
    ),
    # What lies among the images.
    Situation("case synology-eadir", case("synology-eadir"), "pretrain synology-eadir/mine.yaml", 0, FINE),
    Situation(
        "case synology-eadir nomask",
        case("synology-eadir"),
        "masks make synology-eadir/photos --out made",
        0,
        r"60 masks",
        "eaDir",
    ),
    Situation(
        "images of other formats",
        inputs.other_formats,
        "pretrain mine.yaml",
        0,
        r"(?s)2 files are left out because bgsweep cannot read \.heic \(first: dress/\S+\.heic\).* unreadable 0 ",
    ),
    Situation(
        "two images, one mask", inputs.twins, "pretrain mine.yaml", 2, r"\.jpg and \S+\.png would share the mask"
    ),
    Situation(
        "case one-class", case("one-class"), "pretrain one-class/mine.yaml", 0, r"dress is the only class, so that kNN"
    ),
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


@pytest.fixture(autouse=True)
def a_process_of_its_own() -> None:
    """Forget what a process keeps, for all rows have the same relative paths."""
    splits._open.cache_clear()
    warn_once.cache_clear()


@pytest.mark.parametrize("row", TABLE, ids=[row.id for row in TABLE])
def test_situation(
    row: Situation,
    tmp_path: Path,
    empty_store: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    row.make(tmp_path)
    words = row.command.split()
    if words[0] in ("pretrain", "sweep", "evaluate", "doctor"):
        shutil.copytree(empty_store, tmp_path / "store")
        words += ["--store", "store"]
    ended = bgsweep(*words, folder=tmp_path)
    raw = capfd.readouterr()
    told = "\n".join([*caplog.messages, ended.stdout, ended.stderr, raw.out, raw.err])
    assert ended.returncode == row.code, told
    assert re.search(row.says, told), told
    for pattern in (RAW, re.compile(row.never)):
        assert not pattern.search(told), told
    if row.code:
        assert len(re.findall("^error: ", told, re.M)) == 1, told
