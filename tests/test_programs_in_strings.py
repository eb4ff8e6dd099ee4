"""Programs inside string literals, which neither mypy nor ruff sees: what they import from bgsweep exists."""

import ast
import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "tests" / "docs" / "test_contributing.py"  # imports what its recipes make
FOLDERS = ("bgsweep", "benchmarks", "studies", "scripts", "examples", "tests")


def imports() -> Iterator[tuple[str, str, str]]:
    """File, module and name of each import from bgsweep in a string literal."""
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        if path == RECIPES:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for module, names in re.findall(
                    r"(?:^|; )from (bgsweep[\w.]*) import ([\w, ]+)", node.value, re.MULTILINE
                ):
                    for name in names.split(","):
                        yield str(path.relative_to(ROOT)), module, name.split()[0]


FOUND = sorted(set(imports()))


def test_there_are_some() -> None:
    assert ("benchmarks/around.py", "bgsweep.training.run", "limit_threads") in FOUND


@pytest.mark.parametrize(("file", "module", "name"), FOUND)
def test_a_name_that_a_string_imports_exists(file: str, module: str, name: str) -> None:
    loaded = importlib.import_module(module)
    assert hasattr(loaded, name) or importlib.util.find_spec(f"{module}.{name}"), f"{file}: {module}.{name}"
