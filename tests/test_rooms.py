"""The rooms of the house, what each may import, and what importing it may bring in."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bgsweep"

CORE = {
    "errors": set(),
    "seeding": set(),
    "transfer": set(),
    "stopping": set(),
    "addresses": {"errors"},
    "config": {"errors"},
    "storage": {"images", "errors"},
    "images": {"errors"},
    "augment": {"images", "transfer", "seeding", "config", "errors"},
    "data": {"augment", "images", "storage", "seeding", "config", "errors"},
    "models": {"config", "errors"},
    "methods": {"models", "transfer", "config", "errors"},
    "evaluation": {"data", "augment", "images", "storage", "seeding", "config", "errors"},
    "training": {
        "methods",
        "models",
        "evaluation",
        "data",
        "augment",
        "storage",
        "transfer",
        "stopping",
        "seeding",
        "config",
        "errors",
    },
    "masks": {"training", "models", "data", "augment", "images", "storage", "seeding", "config", "errors"},
}
"""Rooms that run without Ray, MLflow and the command line, each with the rooms that it may import."""

OUTER = ["tracking", "distributed", "report", "sweep", "workflows", "api", "cli", "testing"]
"""The other rooms; each may import the core and those before it, never those behind it."""


UPWARDS = {"sweep/__init__.py": {"api"}}
"""`bgsweep.sweep` is a function of the interface and a room: the room's package passes calls on to the function."""


def imports(file: Path) -> Iterator[str]:
    """Full names of the modules that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{file}: a relative import"
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names if node.module == "bgsweep")


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms_imported_by(file: Path) -> set[str]:
    found = {name.split(".")[1] for name in imports(file) if name.startswith("bgsweep.")}
    return found - {room_of(file), "__version__"}


FILES = sorted(file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py")


def test_every_module_is_in_a_room() -> None:
    assert {room_of(file) for file in FILES} == {*CORE, *OUTER}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_module_imports_only_what_its_room_may(file: Path) -> None:
    room, rooms = room_of(file), rooms_imported_by(file)
    if room in CORE:
        assert rooms <= CORE[room]
        assert not {name.partition(".")[0] for name in imports(file)} & {"ray", "mlflow"}
    else:
        allowed = UPWARDS.get(str(file.relative_to(PACKAGE)), set())
        assert not rooms & set(OUTER[OUTER.index(room) + 1 :]) - allowed
        assert room == "tracking" or "mlflow" not in {name.partition(".")[0] for name in imports(file)}


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("bgsweep", "torch ray mlflow cv2"),
        ("bgsweep.config", "torch ray mlflow cv2"),
        ("bgsweep.tracking", "torch ray mlflow cv2"),
        ("bgsweep.cli.main", "torch ray mlflow cv2"),
        ("bgsweep.distributed.session", "torch mlflow"),
        ("bgsweep.workflows.make_masks", "torch ray mlflow onnxruntime"),
        ("bgsweep.sweep.driver", "torch mlflow"),
        ("bgsweep.sweep.first_set_up", "torch mlflow ray.tune"),
        ("bgsweep.distributed.trial_board", "torch mlflow ray.tune"),
        ("bgsweep.sweep.report", "torch ray mlflow cv2"),
    ],
)
def test_import_brings_in_nothing_heavy(module: str, absent: str) -> None:
    """Every process that imports torch costs half a gigabyte, so the sweep's driver must not."""
    look = f"import sys, {module}; print(*set(sys.modules) & set({absent!r}.split()))"
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert found.stdout.split() == []


def test_a_report_does_without_torch() -> None:
    look = (
        "import sys, bgsweep.report.page; print(*set(sys.modules) & {'torch', 'torchvision', 'ray', 'albumentations'})"
    )
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert found.stdout.split() == []


@pytest.mark.parametrize("arguments", ["--help", "sweep --help", "masks make --help"])
def test_help_is_told_without_anything_heavy(arguments: str) -> None:
    heavy = {"torch", "ray", "mlflow", "cv2", "urllib.request"}
    look = (
        "import atexit, sys; from bgsweep.cli.main import main; "
        f"atexit.register(lambda: print(*set(sys.modules) & {heavy}, file=sys.stderr)); "
        f"main({arguments.split()})"
    )
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert "usage: bgsweep" in found.stdout and found.stderr.split() == []
