"""Fixtures that every room's tests share."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real photographs, stimuli and label files that stands beside a developer's checkout."""
    if not SHARED.is_dir():
        pytest.skip("the shared data folder does not lie beside this checkout")
    return SHARED
