"""The ways between the rooms of the house, and what may be brought into each."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bgsweep"

CORE = {
    "errors": set(),
    "places": {"errors"},
    "config": {"errors"},
    "augment": {"config", "errors"},
    "data": {"augment", "config", "errors", "places"},
    "models": {"config", "errors"},
    "methods": {"models", "config", "errors"},
    "training": {"methods", "models", "data", "augment", "config", "errors"},
    "evaluation": {"data", "augment", "config", "errors"},
    "masks": {"training", "models", "data", "augment", "config", "errors", "places"},
}
"""Rooms that run without Ray and MLflow, each with the rooms it knows."""

OUTWARDS = [
    "training",
    "feed",
    "run",
    "spread",
    "assess",
    "pretrain",
    "report",
    "sweep",
    "masking",
    "mask_training",
    "submit",
    "commands",
    "arguments",
    "cli",
    "study",
]
"""Each of these may know those before it, never those behind it."""


def imports(file: Path) -> Iterator[str]:
    """Full names of the modules that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{file}: a relative import"
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names if node.module == "bgsweep")


def rooms_known_to(file: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(file) if name.startswith("bgsweep.")}


def files_of(room: str) -> list[Path]:
    file = PACKAGE / f"{room}.py"
    return [file] if file.exists() else sorted((PACKAGE / room).rglob("*.py"))


@pytest.mark.parametrize("room", CORE)
def test_core_room_knows_only_what_lies_further_in(room: str) -> None:
    for file in files_of(room):
        assert rooms_known_to(file) - {room} <= CORE[room], file
        assert not {name.partition(".")[0] for name in imports(file)} & {"ray", "mlflow"}, file


def test_only_tracking_and_export_know_mlflow() -> None:
    knowing = {
        file.relative_to(PACKAGE).parts[0]
        for file in PACKAGE.rglob("*.py")
        if any(name.partition(".")[0] == "mlflow" for name in imports(file))
    }
    assert knowing == {"tracking", "export.py"}


@pytest.mark.parametrize("room", OUTWARDS)
def test_nobody_imports_back(room: str) -> None:
    behind = set(OUTWARDS[OUTWARDS.index(room) + 1 :])
    for file in files_of(room):
        assert not rooms_known_to(file) & behind, file


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("bgsweep", "torch ray mlflow cv2"),
        ("bgsweep.config", "torch ray mlflow cv2"),
        ("bgsweep.tracking", "torch ray mlflow cv2"),
        ("bgsweep.cli", "torch ray mlflow cv2"),
        ("bgsweep.session", "torch mlflow"),
        ("bgsweep.masking", "torch ray mlflow onnxruntime"),
        ("bgsweep.sweep.sweep", "torch mlflow"),
    ],
)
def test_import_brings_in_nothing_heavy(module: str, absent: str) -> None:
    """Every process that imports torch costs half a gigabyte, so the sweep's driver must not."""
    look = f"import sys, {module}; print(*set(sys.modules) & set({absent!r}.split()))"
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert found.stdout.split() == []


@pytest.mark.parametrize("arguments", ["--help", "sweep --help", "masks make --help"])
def test_help_is_told_without_anything_heavy(arguments: str) -> None:
    look = (
        "import atexit, sys; from bgsweep.cli import main; "
        "atexit.register(lambda: print(*set(sys.modules) & {'torch', 'ray', 'mlflow', 'cv2'}, file=sys.stderr)); "
        f"main({arguments.split()})"
    )
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert "usage: bgsweep" in found.stdout and found.stderr.split() == []
