"""The images are not built where the tests run; their Dockerfiles are held to a linter's rules instead, and the package
is built from what is copied."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def read(name: str) -> list[tuple[str, str]]:
    """Keyword and arguments of each instruction, continued lines joined, comments left out."""
    text = (ROOT / name).read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    pairs = (line.split(maxsplit=1) for line in lines.replace("\\\n", " ").splitlines() if line.strip())
    return [(keyword, " ".join(rest.split())) for keyword, rest in pairs]


@pytest.fixture(scope="module", params=["Dockerfile", "cluster/mlflow/Dockerfile"])
def instructions(request: pytest.FixtureRequest) -> list[tuple[str, str]]:
    return read(request.param)


def arguments(instructions: list[tuple[str, str]], wanted: str) -> list[str]:
    return [rest for keyword, rest in instructions if keyword == wanted]


def test_every_base_is_pinned_to_one_release(instructions: list[tuple[str, str]]) -> None:
    bases = arguments(instructions, "FROM")
    assert bases
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+( AS \w+)?", base) for base in bases)


def test_image_runs_as_an_ordinary_user(instructions: list[tuple[str, str]]) -> None:
    last_stage = instructions[max(i for i, (keyword, _) in enumerate(instructions) if keyword == "FROM") :]
    users = arguments(last_stage, "USER")
    # A number, since Kubernetes' runAsNonRoot cannot look names up.
    assert len(users) == 1 and int(users[0]) > 0
    keywords = [keyword for keyword, _ in last_stage]
    assert "RUN" not in keywords[keywords.index("USER") :]


def test_package_lists_are_removed_in_the_layer_that_fetched_them(instructions: list[tuple[str, str]]) -> None:
    fetching = [run for run in arguments(instructions, "RUN") if "apt-get" in run]
    for run in fetching:
        assert "apt-get update &&" in run
        assert "--no-install-recommends" in run
        assert "rm -rf /var/lib/apt/lists/*" in run


def test_files_are_copied_and_commands_need_no_shell(instructions: list[tuple[str, str]]) -> None:
    assert not arguments(instructions, "ADD")
    for command in [*arguments(instructions, "ENTRYPOINT"), *arguments(instructions, "CMD")]:
        assert all(isinstance(word, str) for word in json.loads(command))


def test_pip_installs_the_tested_versions(instructions: list[tuple[str, str]]) -> None:
    installs = [run for run in arguments(instructions, "RUN") if "pip install" in run]
    assert installs
    assert all(re.search(r"-c \S*constraints\.txt", run) or "--no-deps" in run for run in installs)


def test_everything_copied_is_let_through_to_the_builder(instructions: list[tuple[str, str]]) -> None:
    allowed = set((ROOT / ".dockerignore").read_text(encoding="utf-8").split())
    for copy in arguments(instructions, "COPY"):
        sources = [word for word in copy.split()[:-1] if not word.startswith("--")]
        if "--from=" not in copy:
            assert {f"!{Path(source).parts[0]}" for source in sources} <= allowed


def test_the_image_has_every_file_of_the_package_with_the_recipes(tmp_path: Path) -> None:
    whole = read("Dockerfile")
    build = whole[: [keyword for keyword, _ in whole].index("FROM", 1)]
    for copy in arguments(build, "COPY"):
        *sources, target = copy.split()
        for source in sources:
            there = tmp_path / (target + source if target.endswith("/") else target)
            there.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():  # links stay links, as for Docker
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / source, there, symlinks=True, ignore=ignored, dirs_exist_ok=True)
            else:
                shutil.copyfile(ROOT / source, there)
    program = "from setuptools import build_meta; build_meta.build_wheel('wheel')"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, check=True)
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    installed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("bgsweep/")}
    recipes = {f"bgsweep/search_spaces/{path.name}" for path in (ROOT / "search_spaces").glob("*.yaml")}
    assert recipes and recipes <= installed
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "bgsweep").rglob("*.py")} <= installed
