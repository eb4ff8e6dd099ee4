"""The tutorial's steps 2 to 5, command by command: from a folder of images to a registered and exported encoder."""

import json
import re
import shlex
from pathlib import Path

import pytest

import bgsweep as bg
from tests.command import bgsweep, fresh

ROOT = Path(__file__).parents[2]
STEPS = ["images", "run", "sweep", "use"]
COMMAND = re.compile(r"^(?:    )?((?:bgsweep|python) .*)$", re.MULTILINE)


def run(command: str, folder: Path) -> str:
    kind, *words = shlex.split(command)
    if kind == "bgsweep":
        done = bgsweep(*words, folder=folder)
    else:
        done = fresh(
            shlex.join([kind, *(str(ROOT / word[3:]) if word.startswith("../") else word for word in words)]), folder
        )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


def thin(folder: Path) -> None:
    """Keep every fourth image of four classes, with its mask: the tutorial's commands then take seconds."""
    for tree in ("images", "masks"):
        for split in ("train", "validation", "test"):
            for number, place in enumerate(sorted((folder / tree / split).iterdir())):
                for index, path in enumerate(sorted(place.iterdir())):
                    if number >= 4 or index % 4:
                        path.unlink()
                if number >= 4:
                    place.rmdir()


@pytest.mark.faults
def test_every_command_works_in_its_order(tmp_path: Path) -> None:
    pages = [(ROOT / "docs" / "tutorial" / f"{step}.md").read_text(encoding="utf-8") for step in STEPS]
    commands = [command for page in pages for command in COMMAND.findall(page)]
    assert len(commands) == 14
    printed = {}
    for command in commands:
        if "NAME" in command:
            status = json.loads(run("bgsweep status --json", tmp_path))
            command = command.replace("NAME", status["sweeps"][0]["sweep"])
        printed[command.split()[1]] = run(command, tmp_path)
        if "zipfile" in command:
            thin(tmp_path)
    made = {"masks.png", "views.png", "mine.yaml", "report.html", "neighbours.png", "encoder"}
    assert made <= {path.name for path in tmp_path.iterdir()}
    assert "t00" in printed["sweep"] and "mine version 1, alias champion" in re.sub(" +", " ", printed["sweep"])
    assert "mixed_rand" in printed["evaluate"] and "mine" in printed["models"]
    lines = printed["../examples/neighbours.py"].splitlines()
    assert len(lines) == len(list((tmp_path / "images" / "test").rglob("*.jpg")))
    for line in lines:
        name, found = line.split(": ")
        assert found.count("(") == 3 and name not in found
    assert bg.load(tmp_path / "encoder", store=tmp_path).size == 32
