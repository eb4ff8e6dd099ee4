"""Docstrings name the thing that they describe."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("bgsweep", "tests", "benchmarks", "studies", "scripts", "examples")
RIDDLE = re.compile(r"(What|Who|Whose|Whether|How|Why|Where)\b")


def test_no_docstring_begins_as_a_question() -> None:
    found = []
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                words = ast.get_docstring(node) or ""
                if RIDDLE.match(words):
                    found.append(f"{path.relative_to(ROOT)}: {words.splitlines()[0]}")
    assert found == []
