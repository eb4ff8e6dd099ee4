"""The pages of the API, made from the docstrings."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_apis_pages_are_made_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pdoc", "--docformat", "google", "-o", str(tmp_path), "bgsweep"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 and "Warn" not in done.stderr and "Error" not in done.stderr, done.stderr
    page = (tmp_path / "bgsweep" / "config.html").read_text(encoding="utf-8")
    assert "Experiment" in page and "SweepFile" in page
