"""The recipes of CONTRIBUTING.md, followed to the letter in a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "tiny.yaml"
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks(title: str) -> list[str]:
    """The blocks of code in a section of the page, in their order."""
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^ +```python\n(.*?)^ +```$", section, re.MULTILINE | re.DOTALL)
    return [re.sub("^ {3}", "", each, flags=re.MULTILINE) for each in found]


def edit(file: Path, pattern: str, replacement: str) -> None:
    """Change the only place of a file that a pattern fits."""
    text, count = re.subn(pattern, lambda found: found.expand(replacement), file.read_text(), flags=re.MULTILINE)
    assert count == 1, (file, pattern, count)
    file.write_text(text)


def literal(text: str) -> str:
    return text.replace("\\", "\\\\")


def add_the_method(package: Path) -> None:
    config, module = blocks("A new method")
    methods = package / "config" / "methods.py"
    edit(methods, r"^(_Any = )(.*)$", literal(textwrap.dedent(config)) + r"\n\n\1\2 | ToyConfig")
    (package / "methods" / "toy.py").write_text(module)


def add_the_evaluator(package: Path) -> None:
    module, line, settings, field = blocks("A new evaluator")
    (package / "evaluation" / "evaluators" / "toy.py").write_text(module)
    registry = package / "evaluation" / "registry.py"
    edit(registry, r"^(    shape_bias,\n)", r"\1    toy,\n")
    edit(registry, r"^(    \*\*detection.EVALUATORS,\n)", r"\1" + literal(line))
    suite = package / "config" / "evaluation.py"
    edit(suite, r"^(class SuiteConfig)", literal(settings) + r"\n\n\1")
    suite.write_text(suite.read_text() + field)


def add_the_searcher(package: Path) -> None:
    module, line = blocks("A new searcher")
    (package / "sweep" / "searchers" / "toy.py").write_text(module)
    edit(package / "config" / "search.py", r"^(SEARCHERS = \{\n)", r"\1" + literal(line))


USE_THE_SEARCHER = """
from bgsweep.config import load
from bgsweep.sweep.searcher import TuneSearcher, total_trials

config = load(%r, ["search.algorithm=toy", "search.trials=12"])
searcher = TuneSearcher(config)
for number in range(total_trials(config)):
    print(searcher.suggest(str(number))["values"])
"""


@pytest.mark.slow
def test_a_toy_method_is_trained_a_toy_evaluator_runs_and_a_toy_searcher_proposes(tmp_path: Path) -> None:
    package = tmp_path / "bgsweep"
    shutil.copytree(ROOT / "bgsweep", package, ignore=shutil.ignore_patterns("__pycache__"))
    add_the_method(package)
    add_the_evaluator(package)
    add_the_searcher(package)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}

    def python(*words: str) -> str:
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def bgsweep(*words: str) -> str:
        return python("-m", "bgsweep.cli", *words)

    proposed = python("-c", USE_THE_SEARCHER % str(TINY)).splitlines()
    assert len(proposed) == 12 and 1 < len(set(proposed)) < 12  # few combinations of ends, so that some come again

    printed = bgsweep("pretrain", str(TINY), "method={name: toy}", "training.epochs=1")
    checkpoint = re.search(r"^checkpoint +(.*)$", printed, re.MULTILINE)
    assert checkpoint is not None and "embedding_std" in printed
    suite = tmp_path / "suite.yaml"
    suite.write_text("toy: {power: 2.0}\n")
    printed = bgsweep("evaluate", checkpoint[1], "--suite", "toy", "--data", str(suite))
    share = re.search(r"^toy +toy_top1 +([\d.]+)$", printed, re.MULTILINE)
    assert share is not None and float(share[1]) > 15, printed  # ten classes
    assert "nearest class mean, cosine" in printed

    lint = [sys.executable, "-m", "ruff", "check", "--ignore", "I001", "--config", str(ROOT / "pyproject.toml"), "."]
    done = subprocess.run(lint, cwd=package, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
