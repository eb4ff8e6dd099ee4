"""The API reference, made from the docstrings."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.faults  # for its time
def test_the_api_reference_is_made_without_a_warning_on_a_machine_without_caches(tmp_path: Path) -> None:
    recipe = re.search(r"^\t(.* -m pdoc .*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert recipe is not None
    command = recipe[1].replace("$(BIN)", shlex.quote(str(Path(sys.executable).parent)))
    command = command.replace("build/api", shlex.quote(str(tmp_path / "api")))
    (tmp_path / "home").mkdir()
    environment = {**os.environ, "HOME": str(tmp_path / "home")}
    done = subprocess.run(
        command, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0 and "Warn" not in done.stderr and "Error" not in done.stderr, done.stderr
    page = (tmp_path / "api" / "bgsweep" / "config.html").read_text(encoding="utf-8")
    assert "Experiment" in page and "SweepConfig" in page
