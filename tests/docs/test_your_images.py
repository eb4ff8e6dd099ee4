"""The page "bring your own images", command by command, from a folder to the champion's neighbours."""

import json
import re
import shlex
from pathlib import Path

import cv2
import pytest

from tests.command import bgsweep, fresh

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "your-images.md").read_text(encoding="utf-8")


def run(command: str, folder: Path) -> str:
    kind, *words = shlex.split(command)
    if kind == "bgsweep":
        done = bgsweep(*words, folder=folder)
    else:
        done = fresh(shlex.join([kind, str(ROOT / words[0]), *words[1:]]), folder)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_every_command_of_the_page_works_in_its_order(tmp_path: Path) -> None:
    from bgsweep.data.datasets.bundled import EmbeddedSample

    sample = EmbeddedSample("train")
    kept = [index for index in range(0, 960, 8) if sample.labels[index] < 4]
    for number, index in enumerate(kept):
        image = sample[index]
        split = "test" if number % 3 == 0 else "train"
        path = tmp_path / "images" / split / sample.classes[image.label] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image.image[..., ::-1])
    (tmp_path / "mine.yaml").write_text(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])  # type: ignore[index]

    commands = re.findall(r"^    ((?:bgsweep|python) .*)$", PAGE, re.MULTILINE)
    assert len(commands) == 8
    printed = ""
    for command in commands:
        if "NAME" in command:
            status = json.loads(run("bgsweep status --json", tmp_path))
            command = command.replace("NAME", status["sweeps"][0]["sweep"])
        printed = run(command, tmp_path)
    assert {"masks.png", "views.png", "report.html", "neighbours.png"} <= {path.name for path in tmp_path.iterdir()}
    lines = printed.splitlines()
    assert len(lines) == len(list((tmp_path / "images" / "test").rglob("*.png")))
    for line in lines:
        name, found = line.split(": ")
        assert found.count("(") == 3 and name not in found
