"""Random YAML files, stores and environments: every command ends with a result or with one line, never in a traceback.

Seeded; the time is bounded, so that a slower machine tries fewer of the same cases.
"""

import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bgsweep.tracking import Tracker, tracking_uri
from tests.command import bgsweep

SPACES = Path(__file__).parents[1] / "search_spaces"
SECONDS = 8.0  # for each test
ODD: list[Any] = [
    None, True, 0, -1, 1, 3, 0.5, 1e30, -1e-30, 10**40, float("nan"), float("inf"), "", " ", "a", "high", "1e-3",
    "null", "ünï", "a/b", "../x", "~", "s3://", "x\x00y", "\ud800", "m-1", [], [None], [0.1, 0.3], [0.3, 0.1],
    [1, 2, 3], {}, {"uniform": [0, 1]}, {"choice": []}, {"choice": [None, {}]}, {"quniform": [0, 1, 0.3]},
    {"uniform": ["a", "b"]}, {"loguniform": [1e-3, 1e3]}, {"name": "swav"},
    {"uniform": [0, 1], "when": {"background.fill": "mean"}},
]  # fmt: skip
KEYS = [
    "name",
    "space",
    "experiment",
    "background.remove",
    "encoder.width",
    "points",
    "when",
    "1",
    "",
    "data",
    "method",
]
NAMES = [
    "a?b", "per%20cent", "%", "a#b", "a b", "ünï", "a'b", 'a"b', "a;b", "a&b=c", "a\nb", "~", "-x", "a:b", "a\\b",
    os.fsdecode(b"caf\xe9"), "x" * 300, "a/../b", ".",
]  # fmt: skip
ADDRESSES = [
    "", " ", "x", "http://", "http://[::1", "http://127.0.0.1:1", "http://h:99999", "https://127.0.0.1:1/x?y=z", "://",
    "postgresql://u:secret@h/db", "postgres://h/db", "mysql://u:secret@h/db", "mssql://h/x", "bogus://x", "ftp://h",
    "sqlite:", "sqlite:///", "sqlite:////proc/x/y.db", "sqlite:////dev/null", "file:///tmp/x", "./mlruns",
    "databricks-x", "127.0.0.1:5000", os.fsdecode(b"http://caf\xe9"), "http://u:secret@127.0.0.1:1",
]  # fmt: skip


def until(seconds: float, limit: int) -> Iterator[int]:
    """Numbers of cases, until the time is up."""
    end = time.monotonic() + seconds
    for number in range(limit):
        if time.monotonic() > end:
            return
        yield number


def check(folder: Path, *words: object) -> None:
    try:
        ended = bgsweep(*words, folder=folder)
    except SystemExit:  # of --help and --version
        return
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert ended.returncode in (0, 2), ended.stderr
    if words[0] != "doctor":  # which prints a table, and what is missing in it
        assert len(lines) == (ended.returncode == 2), ended.stderr
    assert "Traceback" not in ended.stderr and "secret" not in ended.stderr + ended.stdout


def mutated(tree: Any, draw: random.Random) -> Any:
    """The tree with one value or key somewhere in it replaced, added or left out."""
    if isinstance(tree, dict) and tree and draw.random() < 0.8:
        key = draw.choice(list(tree))
        return {**tree, key: mutated(tree[key], draw)}
    if isinstance(tree, dict) and draw.random() < 0.5:
        return {**tree, draw.choice(KEYS): draw.choice(ODD)}
    if isinstance(tree, list) and tree and draw.random() < 0.5:
        return [mutated(tree[0], draw), *tree[1:]]
    return draw.choice(ODD)


def damaged(text: bytes, draw: random.Random) -> bytes:
    """The text with some bytes overwritten, taken out or repeated."""
    at, length = draw.randrange(len(text)), draw.choice((1, 1, 2, 8, 64))
    middle = draw.choice(
        (b"", draw.randbytes(length), text[at : at + length] * 2, b"\t", b": ", b"&a *a", b"- ", b"\n")
    )
    return text[:at] + middle + text[at + length :]


def test_yaml_files(tmp_path: Path) -> None:
    draw = random.Random(0)
    files = sorted(SPACES.glob("*.yaml"))
    for number in until(SECONDS, 2000):
        text = draw.choice(files).read_bytes()
        if number % 2:
            for _ in range(draw.randint(1, 4)):
                text = damaged(text, draw)
        else:
            tree = yaml.safe_load(text)
            for _ in range(draw.randint(1, 3)):
                tree = mutated(tree, draw)
            text = yaml.safe_dump(tree).encode("utf-8", "surrogatepass")
        (tmp_path / "mine.yaml").write_bytes(text)
        (tmp_path / f"last-{number % 8}.yaml").write_bytes(text)  # to look at where one fails
        check(tmp_path, "evaluate", "none.pt", "mine.yaml")  # which reads the file first


def test_overrides(tmp_path: Path) -> None:
    draw = random.Random(1)
    words = [
        "background.remove",
        "search.trials",
        "space.background.remove",
        "space",
        "experiment",
        "name",
        "",
        ".",
        "data",
    ]
    for _ in until(SECONDS / 2, 1000):
        key = draw.choice([*words, *KEYS])
        value = draw.choice(["", "x", "[", "{", "1e-3", "null", "!!python/name:os.system", *map(str, ODD)])
        check(
            tmp_path, "evaluate", "none.pt", SPACES / "quickstart.yaml", f"{key}{draw.choice(('=', '==', ''))}{value}"
        )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "store"
    with Tracker(tracking_uri(folder)) as tracker:
        assert tracker.experiment_id
    return folder


def test_stores(tmp_path: Path, store: Path) -> None:
    draw = random.Random(2)
    database = (store / "mlflow.db").read_bytes()
    for _ in until(SECONDS, 200):
        place = Path(os.path.normpath(tmp_path / draw.choice(NAMES)))
        kind = draw.choice(("none", "file", "well", "damaged", "cut", "text"))
        if len(place.name) < 255 and not place.exists():
            if kind == "file":
                place.write_text("x")
            elif kind != "none":
                shutil.copytree(store, place)
        if len(place.name) < 255 and (place / "mlflow.db").is_file() and kind in ("damaged", "cut", "text"):
            content = database[: draw.randrange(len(database))] if kind == "cut" else database
            content = draw.randbytes(200) if kind == "text" else content
            for _ in range(20 if kind == "damaged" else 0):
                content = damaged(content, draw)
            (place / "mlflow.db").write_bytes(content)
        check(tmp_path, draw.choice(("models", "status")), f"--store={place.name}")


def test_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(3)
    for _ in until(SECONDS, 200):
        with monkeypatch.context() as patched:
            for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "BGSWEEP_STORE"):
                if draw.random() < 0.6:
                    patched.setenv(name, draw.choice(ADDRESSES))
            check(tmp_path, draw.choice(("models", "status", "doctor")))
