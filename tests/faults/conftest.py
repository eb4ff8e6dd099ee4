"""Every test here is left out of `make test`: `make test-faults` runs them."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.faults)
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(3600))  # the last resort: waiting ends by itself without progress
