"""Files of the package other than modules, which an editable installation finds where they are and a wheel may lack."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bgsweep"
DATA = [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]


@pytest.mark.parametrize("path", DATA, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_wheel_holds_every_file_of_data(path: Path) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (patterns,) = settings["tool"]["setuptools"]["package-data"].values()
    assert any(path in PACKAGE.glob(pattern) for pattern in patterns), "add it to package-data in pyproject.toml"
